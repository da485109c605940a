"""What NannyML says of the census files, chunk by chunk, as JSON.

    python golden.py DATA > employment.json    # minutes
    python golden.py DATA few                  # a method for numbers, one for categories, ROC AUC

DATA holds employment_MA_reference.pq, …_analysis.pq and …_analysis_target.pq.
`go test ./drift -run TestEmploymentAsNannyML` holds Kedge's values against the file;
run.sh asks for a few beside a running kedge. The interpreter is that of
third_party/python/nannyml: NannyML and what computes these values. All that it lists is
2.2 GB; the libraries below draw pictures, fit trees and report its use to its makers,
and are not there.
"""
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
import types

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
ABSENT = {"plotly", "matplotlib", "seaborn", "statsmodels", "flaml", "lightgbm", "category_encoders", "segment"}


class Empty(type):
    """Classes without anything, in which there is whatever they are asked for: another one."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Empty(name, (), {})


class Absent(types.ModuleType):
    """A library that is imported, by names to inherit from and to annotate with, and not used."""
    __path__ = []
    __getattr__ = Empty.__getattr__


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Finder())

import nannyml
import pandas

CHUNK = 5000
NUMBERS = ["AGEP", "predicted_probability"]
CATEGORIES = ["SCHL", "MAR", "RELP", "CIT", "SEX", "RAC1P"]
FEW = len(sys.argv) > 2
METRICS = ["roc_auc"] if FEW else ["roc_auc", "f1", "accuracy", "precision", "recall", "specificity"]
NUMERIC = ["kolmogorov_smirnov"] if FEW else ["jensen_shannon", "hellinger", "kolmogorov_smirnov", "wasserstein"]
CATEGORICAL = ["jensen_shannon"] if FEW else ["jensen_shannon", "hellinger", "chi2", "l_infinity"]


def columns(result, keys, fields):
    """One list of values per key and field, a value per chunk, the reference's chunks first."""
    data, out = result.to_df(), {}
    for key in keys:
        for field in fields:
            if key + (field,) in data:
                values = [None if v is None or v != v else bool(v) if field == "alert" else float(f"{v:.12g}") for v in data[key + (field,)]]
                out["/".join(key + (field,))] = values[:1] if field == "upper_threshold" else values
    return out


def main(folder):
    began = time.time()
    reference = pandas.read_parquet(folder + "/employment_MA_reference.pq")
    analysis = pandas.read_parquet(folder + "/employment_MA_analysis.pq")
    truth = pandas.read_parquet(folder + "/employment_MA_analysis_target.pq")
    out = {"nannyml": nannyml.__version__, "pandas": pandas.__version__, "chunk_size": CHUNK}

    drift = nannyml.UnivariateDriftCalculator(column_names=NUMBERS + CATEGORIES, treat_as_categorical=CATEGORIES, chunk_size=CHUNK,
                                              continuous_methods=NUMERIC, categorical_methods=CATEGORICAL).fit(reference).calculate(analysis)
    keys = [(c, m) for c in NUMBERS for m in NUMERIC] + [(c, m) for c in CATEGORIES for m in CATEGORICAL]
    out["drift"] = columns(drift, keys, ["value", "upper_threshold", "alert"])

    names = dict(y_pred_proba="predicted_probability", y_pred="prediction", y_true="employed", problem_type="classification_binary", metrics=METRICS, chunk_size=CHUNK)
    expected = nannyml.CBPE(**names).fit(reference).estimate(analysis)
    out["expected"] = columns(expected, [(m,) for m in METRICS], ["value", "sampling_error", "upper_confidence_boundary", "lower_confidence_boundary"])
    realised = nannyml.PerformanceCalculator(**names).fit(reference).calculate(analysis.merge(truth, on="id"))
    out["realised"] = columns(realised, [(m,) for m in METRICS], ["value"])
    print(f"{time.time() - began:.1f} s", file=sys.stderr)
    json.dump(out, sys.stdout, separators=(",", ":"))
    print()


main(sys.argv[1])
