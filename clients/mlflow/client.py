"""Drives a server with the ordinary MLflow client, as training scripts do.

usage: client.py URL
"""

import os
import sys
import tempfile

os.environ["MLFLOW_TRACKING_URI"] = sys.argv[1]
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
if os.environ.get("TOKEN"):
    os.environ["MLFLOW_TRACKING_TOKEN"] = os.environ["TOKEN"]
os.environ["GIT_PYTHON_REFRESH"] = "quiet"

import mlflow
import numpy as np
import xgboost
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(1)
x = rng.normal(size=(300, 4))
y = (x[:, 0] + x[:, 1] > 0).astype(int)
client = MlflowClient()

# Tracking.
experiment = mlflow.set_experiment("fraud").experiment_id
assert mlflow.set_experiment("fraud").experiment_id == experiment
for i in range(5):
    with mlflow.start_run(run_name=f"try {i}", tags={"team": "risk"}) as run:
        mlflow.log_param("depth", i)
        mlflow.log_params({"eta": 0.1, "note": "it's"})
        for step in range(3):
            mlflow.log_metric("auc", 0.5 + 0.1 * i + 0.01 * step, step=step)
        mlflow.log_metrics({"loss": float("nan"), "rows": 300})
        mlflow.set_tag("phase", "search")
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "notes.txt")
            open(path, "w").write("hello")
            mlflow.log_artifact(path, "texts")
        mlflow.log_dict({"a": 1}, "config.json")
got = client.get_run(run.info.run_id)
assert got.info.status == "FINISHED" and got.data.params["depth"] == "4" and abs(got.data.metrics["auc"] - 0.92) < 1e-9
assert got.data.metrics["loss"] != got.data.metrics["loss"]
assert [m.step for m in client.get_metric_history(run.info.run_id, "auc")] == [0, 1, 2]
assert sorted(f.path for f in client.list_artifacts(run.info.run_id)) == ["config.json", "texts"]
assert open(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="texts/notes.txt")).read() == "hello"
try:
    client.log_param(run.info.run_id, "depth", 99)
    raise SystemExit("a parameter was changed")
except mlflow.exceptions.MlflowException as e:
    assert e.error_code == "INVALID_PARAMETER_VALUE", e
try:
    with mlflow.start_run():
        raise ValueError("boom")
except ValueError:
    pass
assert mlflow.last_active_run().info.status == "FAILED"

# Search.
found = client.search_runs([experiment], "metrics.auc > 0.65 and params.depth != '4' and tags.team = 'risk'", order_by=["metrics.auc DESC"])
assert [r.info.run_name for r in found] == ["try 3", "try 2"], found
pages, token = [], None
while True:
    page = client.search_runs([experiment], max_results=2, page_token=token)
    pages += list(page)
    token = page.token
    if not token:
        break
assert len(pages) == 6
assert len(mlflow.search_runs(experiment_names=["fraud"])) == 6
assert [e.name for e in client.search_experiments(filter_string="name LIKE 'fr%'")] == ["fraud"]
client.delete_run(run.info.run_id)
assert len(client.search_runs([experiment])) == 5
client.restore_run(run.info.run_id)

# Autologging of scikit-learn and XGBoost.
mlflow.sklearn.autolog(log_datasets=True, log_models=False)
with mlflow.start_run() as run:
    LogisticRegression().fit(x, y)
auto = client.get_run(run.info.run_id)
assert "training_score" in auto.data.metrics and auto.data.params["C"] == "1.0", auto.data
mlflow.sklearn.autolog(disable=True)
mlflow.xgboost.autolog(log_models=False)
with mlflow.start_run() as run:
    d = xgboost.DMatrix(x, y)
    xgboost.train({"objective": "binary:logistic"}, d, 4, evals=[(d, "train")], verbose_eval=False)
history = client.get_metric_history(run.info.run_id, "train-logloss")
assert {m.step for m in history} == {0, 1, 2, 3}, history
assert client.get_run(run.info.run_id).data.params["objective"] == "binary:logistic"
mlflow.xgboost.autolog(disable=True)

# Models: log, register, alias, load.
with mlflow.start_run() as run:
    model = LogisticRegression().fit(x, y)
    info = mlflow.sklearn.log_model(model, name="model", registered_model_name="fraud", input_example=x[:2], pip_requirements=["scikit-learn"])
second = mlflow.register_model(f"runs:/{run.info.run_id}/model", "fraud")
assert second.version == "2", second
client.set_registered_model_alias("fraud", "champion", 2)
assert client.get_model_version_by_alias("fraud", "champion").version == "2"
client.set_model_version_tag("fraud", "2", "approved", "yes")
for uri in (info.model_uri, "models:/fraud/1", "models:/fraud@champion"):
    assert (mlflow.pyfunc.load_model(uri).predict(x) == model.predict(x)).all(), uri
assert {v.version for v in client.search_model_versions("name = 'fraud'")} == {"1", "2"}
assert [m.name for m in client.search_registered_models("name LIKE 'fra%'")] == ["fraud"]
assert client.get_registered_model("fraud").aliases == {"champion": "2"}
client.delete_registered_model_alias("fraud", "champion")
try:
    client.get_model_version_by_alias("fraud", "champion")
    raise SystemExit("a deleted alias answers")
except mlflow.exceptions.MlflowException:
    pass
client.delete_model_version("fraud", "1")
assert [v.version for v in client.search_model_versions("name = 'fraud'")] == ["2"]
print("mlflow", mlflow.__version__, "ok")
