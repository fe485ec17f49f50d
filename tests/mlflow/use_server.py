"""Uses a tracking server as people do who write training scripts: the tutorial's quickstart, artifacts, the registry.

    python use_server.py URL DIRECTORY

Runs with MLflow 1.22, 2.22 and 3.18, unmodified. Prints one JSON object: the version, the steps that were done, and for
each step that raised an exception its traceback; the directory is for files of its own.
"""

import json
import os
import sys
import traceback

os.environ.update({"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"})
url, directory = sys.argv[1:]
os.chdir(directory)
# What MLflow prints itself must not get among the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import mlflow  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

mlflow.set_tracking_uri(url)
client = MlflowClient()
major = int(mlflow.__version__.split(".")[0])
done, failed, kept = [], {}, {}


def step(function):
    """Does a step; the next ones go on whatever happens."""
    try:
        function()
        done.append(function.__name__)
    except BaseException:
        failed[function.__name__] = traceback.format_exc()


@step
def quickstart():
    # The tutorial starts no run by hand.
    mlflow.log_param("param1", 5)
    for value in (1.0, 2.0, 3.5):
        mlflow.log_metric("foo", value)
    os.makedirs("outputs/deeper", exist_ok=True)
    with open("outputs/test.txt", "w") as file:
        file.write("hello world!")
    with open("outputs/deeper/empty", "w"):
        pass
    mlflow.log_artifacts("outputs")
    kept["run"] = mlflow.active_run().info.run_id
    mlflow.end_run()
    run = client.get_run(kept["run"])
    assert run.info.status == "FINISHED", run
    assert run.data.params == {"param1": "5"}, run
    assert run.data.metrics == {"foo": 3.5}, run
    assert [metric.value for metric in client.get_metric_history(kept["run"], "foo")] == [1.0, 2.0, 3.5]


@step
def artifacts():
    names = sorted(file.path for file in client.list_artifacts(kept["run"]))
    assert names == ["deeper", "test.txt"], names
    assert [file.path for file in client.list_artifacts(kept["run"], "deeper")] == ["deeper/empty"]
    os.makedirs("down", exist_ok=True)
    with open(client.download_artifacts(kept["run"], "test.txt", "down")) as file:
        assert file.read() == "hello world!"
    folder = client.download_artifacts(kept["run"], "", "down")
    assert os.path.isfile(os.path.join(folder, "deeper/empty"))
    client.log_text(kept["run"], "\u00e9 and more", "notes/a b.txt")
    with open(client.download_artifacts(kept["run"], "notes/a b.txt", "down"), encoding="utf-8") as file:
        assert file.read() == "\u00e9 and more"
    client.log_dict(kept["run"], {"a": 1}, "config.json")


@step
def experiments():
    mlflow.set_experiment(f"tutorial-{major}")
    experiment = client.get_experiment_by_name(f"tutorial-{major}")
    client.set_experiment_tag(experiment.experiment_id, "team", "vision")
    everything = client.list_experiments() if major == 1 else client.search_experiments()
    assert {"Default", f"tutorial-{major}"} <= {one.name for one in everything}
    other = client.create_experiment(f"other-{major}")
    client.rename_experiment(other, f"renamed-{major}")
    client.delete_experiment(other)
    client.restore_experiment(other)


@step
def batches_and_searches():
    experiment = client.get_experiment_by_name(f"tutorial-{major}").experiment_id
    for number in range(3):
        with mlflow.start_run(run_name=f"run-{number}") as run:
            mlflow.log_params({"alpha": number, "l1_ratio": 0.1})
            mlflow.log_metrics({"rmse": 1.0 / (number + 1), "r2": float("nan")}, step=number)
            mlflow.set_tag("stage", "test")
            points = [Metric("loss", 1.0 / (at + 1), 1_700_000_000_000 + at, at) for at in range(200)]
            client.log_batch(run.info.run_id, points, [Param("p", "1")], [RunTag("t", "1")])
    found = client.search_runs([experiment], "metrics.rmse < 0.9 and params.l1_ratio = '0.1'", order_by=["metrics.rmse ASC"])
    assert [run.data.params["alpha"] for run in found] == ["2", "1"], found
    assert len(client.get_metric_history(found[0].info.run_id, "loss")) == 200
    client.delete_run(found[0].info.run_id)
    assert len(client.search_runs([experiment])) == 2
    client.restore_run(found[0].info.run_id)
    with mlflow.start_run(run_id=found[0].info.run_id):
        mlflow.log_metric("again", 1)
    with mlflow.start_run():
        with mlflow.start_run(nested=True) as nested:
            assert "mlflow.parentRunId" in nested.data.tags
    page = client.search_runs([experiment], max_results=2)
    assert page.token and len(client.search_runs([experiment], max_results=100, page_token=page.token)) == 3


@step
def errors():
    for wrong in (
        lambda: client.get_run("0" * 32),
        lambda: client.log_param(kept["run"], "param1", "6"),
        lambda: client.create_experiment("Default"),
        lambda: client.download_artifacts(kept["run"], "nothing", "."),
        lambda: client.search_runs(["0"], "nonsense"),
    ):
        try:
            wrong()
        except Exception:
            continue
        raise AssertionError("no exception")


@step
def registry():
    name = f"ElasticnetWineModel-{major}"
    client.create_registered_model(name)
    with open("MLmodel", "w") as file:
        file.write("flavors: {}\n")
    client.log_artifact(kept["run"], "MLmodel", "model")
    source = client.get_run(kept["run"]).info.artifact_uri + "/model"
    version = client.create_model_version(name, source, kept["run"])
    assert str(version.version) == "1" and version.status == "READY", version
    client.update_model_version(name, "1", description="the first")
    client.transition_model_version_stage(name, "1", "Production")
    client.set_registered_model_tag(name, "task", "regression")
    client.set_model_version_tag(name, "1", "checked", "yes")
    assert [one.version for one in client.get_latest_versions(name, ["Production"])] == [version.version]
    if major == 1:
        assert name in [model.name for model in client.list_registered_models()]
    else:
        client.set_registered_model_alias(name, "champion", "1")
        assert client.get_model_version_by_alias(name, "champion").description == "the first"
    assert name in [model.name for model in client.search_registered_models(f"name = '{name}'")] if major > 1 else True
    assert [one.run_id for one in client.search_model_versions(f"name = '{name}'")] == [kept["run"]]
    uri = client.get_model_version_download_uri(name, "1")
    assert uri == source, (uri, source)


@step
def logged_models():
    if major < 3:
        return
    experiment = client.get_experiment_by_name(f"tutorial-{major}").experiment_id
    model = client.create_logged_model(experiment, name="wine", source_run_id=kept["run"], params={"a": "1"})
    with open("weights.bin", "wb") as file:
        file.write(bytes(range(256)) * 4096)
    client.log_model_artifact(model.model_id, "weights.bin")
    client.finalize_logged_model(model.model_id, "READY")
    assert [file.path for file in client.list_logged_model_artifacts(model.model_id)] == ["weights.bin"]
    assert [one.model_id for one in client.search_logged_models([experiment])] == [model.model_id]
    down = mlflow.artifacts.download_artifacts(artifact_uri=model.artifact_location + "/weights.bin")
    with open(down, "rb") as file:
        assert file.read() == bytes(range(256)) * 4096


print(json.dumps({"mlflow": mlflow.__version__, "done": done, "failed": failed}), file=answers, flush=True)
