"""What MLflow answers about a file store, as one canonical JSON document on stdout.

    <venv>/bin/python read_tree.py TREE [--digest-over N] [--no-search]

Everything is asked through MLflow's public client, in the version the running Python has. Two trees hold the same
data for that version exactly when the two documents are equal:

* floats are given as float.hex() (or nan, inf, -inf), so NaN and -0.0 compare; histories keep their order;
* what MLflow gives in the order of a directory listing is sorted;
* an entity that MLflow cannot read is {"error": type name}; the rest of the answers does not suffer;
* the tree's own path reads <ROOT>, so a copy whose URIs were rewritten compares equal to its original;
* histories of more than N points (default 2000) are given as count and SHA-256 of the same text.

The tree is only read: its bytes and directories are as before. (MLflow itself would make `.trash` in a tree without
one; such a tree is reported as {"error": "no .trash"}.)
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import urllib.parse
from pathlib import Path

# First: it decides what MLflow finds when it is imported.
from quiet import VERSION

import mlflow
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

PAGE = 1000
# Directories of an experiment that are never runs.
RESERVED = {"tags", "datasets", "traces", "models"}


class Reader:
    def __init__(self, tree, digest_over, search):
        self.tree = Path(os.path.abspath(tree))
        self.digest_over = digest_over
        self.search = search
        uri = self.tree.as_uri()
        # 3.x asks its default store, a fresh SQLite file, for more than one would think.
        os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = uri
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        spellings = {str(self.tree), os.path.realpath(self.tree)}
        spellings |= {urllib.parse.quote(path) for path in spellings}
        self.spellings = sorted(spellings, key=len, reverse=True)

    # Every answer goes through one of these three.

    def attempt(self, ask):
        """The answer, or the type of what MLflow raised: any failure to read is an answer to be compared."""
        try:
            return ask()
        except Exception as error:
            return {"error": type(error).__name__}

    def text(self, value):
        if value is None:
            return None
        value = str(value)
        for spelling in self.spellings:
            value = value.replace(spelling, "<ROOT>")
        # Lone surrogates (names that are not UTF-8) have no JSON form that every parser takes.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")

    def texts(self, mapping):
        return {self.text(key): self.text(value) for key, value in mapping.items()}

    def fields(self, entity, names):
        """The attributes this version of the entity has; numbers and None as they are, all else as text."""
        answer = {}
        for name in names:
            if hasattr(entity, name):
                value = getattr(entity, name)
                answer[name] = value if isinstance(value, (bool, int)) else self.text(value)
        return answer

    def pages(self, ask):
        found, token = [], None
        while True:
            page = ask(token)
            found.extend(page)
            token = getattr(page, "token", None)
            if not token:
                return found

    def everything(self):
        if not (self.tree / ".trash").is_dir():
            return {"mlflow": mlflow.__version__, "error": "no .trash"}
        answer = {"mlflow": mlflow.__version__}
        listed = self.attempt(lambda: sorted(experiment.experiment_id for experiment in self.list_experiments()))
        answer["search_experiments"] = listed
        ids = set(listed) if isinstance(listed, list) else set()
        for parent in (self.tree, self.tree / ".trash"):
            ids |= {entry.name for entry in parent.iterdir() if entry.is_dir()}
        ids -= {".trash", "models"}
        answer["experiments"] = {self.text(id): self.experiment(id) for id in sorted(ids)}
        if (self.tree / "models").is_dir() and VERSION >= (2, 1):
            answer["registered_models"] = self.registry()
        return answer

    def list_experiments(self):
        if VERSION < (1, 28):
            return self.client.list_experiments(view_type=ViewType.ALL)
        return self.pages(
            lambda token: self.client.search_experiments(
                view_type=ViewType.ALL, max_results=PAGE, page_token=token
            )
        )

    def experiment(self, id):
        answer = self.attempt(lambda: self.experiment_info(id))
        directory = self.tree / id
        if not directory.is_dir():
            directory = self.tree / ".trash" / id
        found = []
        if self.search:
            found = self.attempt(lambda: [run.info.run_id for run in self.search_runs(id)])
            # By start time, newest first, then by id, in every version.
            answer["search_runs"] = found
        runs = set(found) if isinstance(found, list) else set()
        if directory.is_dir():
            runs |= {entry.name for entry in directory.iterdir() if entry.is_dir()} - RESERVED
        answer["runs"] = {self.text(run): self.run(run, directory / run) for run in sorted(runs)}
        if VERSION >= (3, 0) and (directory / "models").is_dir():
            answer["logged_models"] = self.attempt(lambda: self.logged_models(id))
        if VERSION >= (2, 14) and (directory / "traces").is_dir():
            answer["traces"] = self.attempt(lambda: self.traces(id))
        return answer

    def experiment_info(self, id):
        experiment = self.client.get_experiment(id)
        answer = self.fields(
            experiment,
            ["experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time", "last_update_time"],
        )
        answer["tags"] = self.texts(experiment.tags)
        return answer

    def search_runs(self, id):
        return self.pages(
            lambda token: self.client.search_runs(
                [id], filter_string="", run_view_type=ViewType.ALL, max_results=PAGE, page_token=token
            )
        )

    def run(self, id, directory):
        run, answer = None, {}
        try:
            run = self.client.get_run(id)
        except Exception as error:
            answer["error"] = type(error).__name__
        keys = set()
        if run is not None:
            answer["info"] = self.fields(
                run.info,
                ["run_id", "experiment_id", "user_id", "status", "start_time", "end_time", "lifecycle_stage"]
                + ["artifact_uri", "run_name"],
            )
            answer["params"] = self.texts(run.data.params)
            answer["tags"] = self.texts(run.data.tags)
            answer["latest"] = {
                self.text(key): number(value) for key, value in sorted(run.data.metrics.items())
            }
            keys |= set(run.data.metrics)
            if getattr(run, "inputs", None) is not None:
                answer["inputs"] = self.inputs(run.inputs)
            if getattr(run, "outputs", None) is not None:
                answer["outputs"] = in_order(
                    self.fields(model, ["model_id", "step"]) for model in run.outputs.model_outputs
                )
        # A run that MLflow cannot read as a whole still has metrics that can be asked for one by one.
        metrics = directory / "metrics"
        for folder, _, names in os.walk(metrics):
            keys |= {os.path.relpath(os.path.join(folder, name), metrics) for name in names}
        answer["histories"] = {
            self.text(key): self.attempt(lambda: self.history(id, key)) for key in sorted(keys)
        }
        answer["artifacts"] = self.attempt(lambda: self.artifacts(directory / "artifacts"))
        if run is not None and self.inside(run.info.artifact_uri):
            answer["artifacts_by_run"] = self.attempt(
                lambda: self.listing(lambda path: self.client.list_artifacts(id, path))
            )
        return answer

    def history(self, run, key):
        points = [self.point(metric) for metric in self.client.get_metric_history(run, key)]
        if len(points) <= self.digest_over:
            return points
        digest = hashlib.sha256()
        for point in points:
            digest.update(json.dumps(point).encode() + b"\n")
        return {"points": len(points), "sha256": digest.hexdigest()}

    def point(self, metric):
        point = [metric.timestamp, metric.step, number(metric.value)]
        for name in ("dataset_name", "dataset_digest", "model_id"):
            value = getattr(metric, name, None)
            if value is not None:
                point.append(f"{name}={self.text(value)}")
        return point

    def inputs(self, inputs):
        answer = {}
        answer["datasets"] = in_order(
            {
                "dataset": self.fields(
                    entry.dataset, ["name", "digest", "source_type", "source", "schema", "profile"]
                ),
                "tags": self.texts({tag.key: tag.value for tag in entry.tags}),
            }
            for entry in inputs.dataset_inputs
        )
        if hasattr(inputs, "model_inputs"):
            answer["models"] = in_order(self.fields(model, ["model_id"]) for model in inputs.model_inputs)
        return answer

    # Artifacts are listed by place, as a run's URI may name a machine that is gone or a bucket, and also through the
    # run where its URI lies inside the tree.

    def artifacts(self, directory):
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if not directory.is_dir():
            return None
        return self.listing(get_artifact_repository(directory.as_uri()).list_artifacts)

    def inside(self, uri):
        parts = urllib.parse.urlsplit(uri or "")
        if parts.scheme not in ("", "file"):
            return False
        path = urllib.parse.unquote(parts.path) if parts.scheme else uri
        return any(path.startswith(spelling + "/") for spelling in self.spellings)

    def listing(self, ask, path=None):
        answer = []
        for entry in ask(path):
            answer.append([self.text(entry.path), entry.is_dir, entry.file_size])
            if entry.is_dir:
                answer.extend(self.listing(ask, entry.path))
        return sorted(answer, key=lambda entry: entry[0])

    def logged_models(self, id):
        models = self.pages(
            lambda token: self.client.search_logged_models([id], max_results=PAGE, page_token=token)
        )
        return in_order(self.logged_model(model) for model in models)

    def logged_model(self, model):
        answer = self.fields(
            model,
            ["model_id", "experiment_id", "name", "artifact_location", "creation_timestamp"]
            + ["last_updated_timestamp", "model_type", "source_run_id", "status", "status_message"],
        )
        answer["tags"] = self.texts(model.tags)
        answer["params"] = self.texts(model.params)
        answer["metrics"] = in_order(
            [self.text(metric.key), self.point(metric), self.text(getattr(metric, "run_id", None))]
            for metric in model.metrics or []
        )
        return answer

    def traces(self, id):
        traces = self.pages(
            lambda token: self.client.search_traces(
                experiment_ids=[id], max_results=100, page_token=token, include_spans=False
            )
        )
        return in_order(self.plain(trace.info.to_dict()) for trace in traces)

    def plain(self, value):
        if isinstance(value, dict):
            return {self.text(key): self.plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            # Such as the assessments of a trace: one file each, read in the order of the directory.
            return in_order(self.plain(item) for item in value)
        if isinstance(value, float):
            return number(value)
        return value if isinstance(value, (bool, int)) else self.text(value)

    def registry(self):
        models = self.attempt(
            lambda: self.pages(
                lambda token: self.client.search_registered_models(max_results=PAGE, page_token=token)
            )
        )
        if isinstance(models, dict):
            return models
        return {self.text(model.name): self.attempt(lambda: self.registered_model(model)) for model in models}

    def registered_model(self, model):
        answer = self.fields(model, ["name", "creation_timestamp", "last_updated_timestamp", "description"])
        answer["tags"] = self.texts(model.tags)
        answer["aliases"] = self.texts(getattr(model, "aliases", {}))
        # MLflow's own filter language has no escape for a quote in a name.
        versions = self.pages(
            lambda token: self.client.search_model_versions(max_results=PAGE, page_token=token)
        )
        answer["versions"] = in_order(
            {
                **self.fields(
                    version,
                    ["version", "creation_timestamp", "last_updated_timestamp", "description", "user_id"]
                    + ["current_stage", "source", "run_id", "run_link", "status", "status_message", "model_id"],
                ),
                "aliases": sorted(map(self.text, getattr(version, "aliases", []))),
                "tags": self.texts(version.tags),
            }
            for version in versions
            if version.name == model.name
        )
        return answer


def number(value):
    try:
        value = float(value)
    except (OverflowError, TypeError, ValueError):
        return repr(value)
    return value.hex()


def in_order(items):
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("tree")
    arguments.add_argument("--digest-over", type=int, default=2000, metavar="N")
    arguments.add_argument(
        "--no-search", action="store_true", help="skip search_runs, which reads all metrics once more"
    )
    options = arguments.parse_args()
    tree = Path(options.tree).absolute()
    if not tree.is_dir():
        sys.exit(f"read_tree.py: no directory {tree}")
    # Some versions leave an `mlruns` in the working directory.
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        answer = Reader(tree, options.digest_over, not options.no_search).everything()
        os.chdir("/")
    json.dump(answer, sys.stdout, sort_keys=True, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
