"""What NannyML says of the census files, chunk by chunk, as JSON.

    pip install nannyml==0.13.1 pandas==2.3.3 statsmodels        # ten minutes: not in `make clients`
    python golden.py DATA > employment.json

DATA holds employment_MA_reference.pq, …_analysis.pq and …_analysis_target.pq.
`go test ./drift -run TestEmploymentAsNannyML` holds Kedge's values against the file.
"""
import json
import os
import sys
import time

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # NannyML reports its use to its makers otherwise

import nannyml
import pandas

CHUNK = 5000
NUMBERS = ["AGEP", "predicted_probability"]
CATEGORIES = ["SCHL", "MAR", "RELP", "CIT", "SEX", "RAC1P"]
METRICS = ["roc_auc", "f1", "accuracy", "precision", "recall", "specificity"]


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

    numeric, categorical = ["jensen_shannon", "hellinger", "kolmogorov_smirnov", "wasserstein"], ["jensen_shannon", "hellinger", "chi2", "l_infinity"]
    drift = nannyml.UnivariateDriftCalculator(column_names=NUMBERS + CATEGORIES, treat_as_categorical=CATEGORIES, chunk_size=CHUNK,
                                              continuous_methods=numeric, categorical_methods=categorical).fit(reference).calculate(analysis)
    keys = [(c, m) for c in NUMBERS for m in numeric] + [(c, m) for c in CATEGORIES for m in categorical]
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
