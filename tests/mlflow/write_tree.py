"""Writes a fresh file store with MLflow's own client: a little of everything the running version can do.

    <venv>/bin/python write_tree.py DEST [--seed N] [--poison]

DEST must not exist. The seed decides names, texts and numbers; ids, and times that the client does not let one
choose, are MLflow's. --poison adds an experiment that MLflow writes without complaint and then cannot read.
Prints one line of JSON: how many experiments, runs and logged points there must be.
"""

import argparse
import json
import math
import os
import random
import sys
import tempfile
from pathlib import Path

# First: it decides what MLflow finds when it is imported.
from quiet import VERSION

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

START = 1700000000000

# What the YAML writer must quote, escape, fold or leave plain.
NAMES = ["plain", "grüße 日本 🚀", "123", "true", "null", "1.5", "1e3", "0o17", "2024-01-01", "a: b", "- x", "# hash"]
NAMES += ['dq " q', "tab\tin", "nl\nin", " lead", "trail ", "~", "=", "...", "nbsp\u00a0x", "sep\u2028x", "\ufeffbom"]
NAMES += ["bell\x07", "x" * 120, "word " * 40 + "end", "a/b", "{a}", "yes", "n"]
# MLflow 2 and 3 paste the name into a filter, unescaped, and refuse a quote.
NAMES += ["it's"] if VERSION < (2, 0) else []

VALUES = [0.0, -0.0, 1.0, 0.1, 1 / 3, 1e-7, 1e-5, 0.0001, 1e15, 1e16, 1.2345678901234568e17, 1e22, 1e300, 5e-324]
VALUES += [2.2250738585072014e-308, sys.float_info.max, 0.1 + 0.2, math.nan, math.inf, -math.inf, 100.0, -2.5]


class ShortFloat(float):
    """Prints like numpy's float32, which MLflow 1 wrote as it printed: digits that are not the f64 the user had."""

    def __str__(self):
        return "%.8g" % self

    __repr__ = __str__


class Writer:
    def __init__(self, dest, seed):
        self.dest = Path(os.path.abspath(dest))
        uri = self.dest.as_uri()
        os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = uri
        mlflow.set_tracking_uri(uri)
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self.random = random.Random(seed)
        self.clock = START
        self.points = 0

    def word(self):
        return "".join(self.random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(self.random.randint(3, 9)))

    def now(self):
        self.clock += self.random.randint(1, 5000)
        return self.clock

    def metric(self, run, key, value, timestamp=None, step=0, **more):
        self.client.log_metric(run, key, value, self.now() if timestamp is None else timestamp, step, **more)
        self.points += 1

    def run(self, experiment, name=None, tags=None):
        tags = dict(tags or {})
        if name is not None:
            tags["mlflow.runName"] = name
        return self.client.create_run(experiment, start_time=self.now(), tags=tags).info.run_id

    def experiments(self):
        made = [self.client.create_experiment(name) for name in NAMES]
        # A name that could be an experiment's: MLflow refuses to list a tree with any other directory in it.
        # A level deeper than an experiment's runs: MLflow looks for a run by its id in every directory beside the
        # experiments, in the order of the listing, and would take `elsewhere_1/<run id>` for the run itself.
        place = self.dest / "elsewhere_1" / "artifacts"
        inside = self.client.create_experiment("own place", artifact_location=place.as_uri())
        self.client.create_experiment("bucket", artifact_location="s3://some-bucket/a path")
        for key, value in [("team", self.word()), ("mlflow.note.content", "one\n\ntwo: 2\n"), ("a/b", ""), ("num", 7)]:
            self.client.set_experiment_tag(made[0], key, value)
        renamed = self.client.create_experiment("before")
        self.client.set_experiment_tag(renamed, "kept", "through 'renaming'")
        self.client.rename_experiment(renamed, "after: " + self.word())
        gone, back = (self.client.create_experiment(name) for name in ("deleted", "deleted and back"))
        for experiment in (gone, back):
            self.fill(self.run(experiment, "in " + experiment), 3)
            self.client.delete_experiment(experiment)
        self.client.restore_experiment(back)
        return made, inside

    def fill(self, run, points):
        self.client.log_param(run, "lr", repr(self.random.random()))
        self.client.set_tag(run, "stage", self.word())
        loss = self.random.uniform(1, 5)
        for step in range(points):
            loss *= self.random.uniform(0.9, 1.02)
            self.metric(run, "train/loss", loss, step=step)

    def runs(self, experiment):
        for status in ["RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED"]:
            run = self.run(experiment, "status " + status)
            self.fill(run, 4)
            if status != "RUNNING":
                self.client.set_terminated(run, status, self.now())
        for name in ["", "123", "true", "multi\nline", "q'uo\"te", "r" * 300, None]:
            self.run(experiment, name)
        parent = None
        for depth in range(3):
            tags = {"mlflow.parentRunId": parent} if parent else {}
            parent = self.run(experiment, f"depth {depth}", tags)
        deleted, restored = self.run(experiment, "deleted"), self.run(experiment, "restored")
        for run in (deleted, restored):
            self.fill(run, 5)
            self.client.delete_run(run)
        self.client.restore_run(restored)

    def odd_texts(self, experiment):
        run = self.run(experiment, "texts")
        params = {"multi": "a\nb\r\nc\rd\n", "uni": "é 日本 🚀\u2028", "empty": "", "nul": "a\0b", "dir/sub/key": "nested"}
        params.update({"with space": " x ", "é": "e", "meta.yaml": "not meta", ".hidden": "h", "trail ": "t"})
        params.update({"long500": self.word()[:1] * 500, "long6000": "y" * 6000, "k" * 250: "long key"})
        if VERSION >= (2, 0):
            params["a.b:c-d_e"] = "colon"
        for key, value in params.items():
            self.client.log_param(run, key, value)
        for key, value in [("none", None), ("int", 3), ("bool", True), ("list", [1, "two"])]:
            self.client.log_param(run, key, value)
        tags = {"mlflow.note.content": "# Title\n\n* list\n\ttab\n", "t/nested/tag": "x", "empty": "", "sp ace": " "}
        for key, value in tags.items():
            self.client.set_tag(run, key, value)
        self.client.set_tag(run, "t/gone/tag", "x")
        self.client.delete_tag(run, "t/gone/tag")
        self.client.log_batch(
            run,
            metrics=[Metric(f"batch/{i}", i / 7, START + i, i) for i in range(60)],
            params=[Param(f"p{i}", self.word()) for i in range(10)],
            tags=[RunTag(f"g{i}", self.word()) for i in range(10)],
        )
        self.points += 60

    def odd_metrics(self, experiment):
        run = self.run(experiment, "numbers")
        for step, value in enumerate(VALUES):
            self.metric(run, "values/all", value, step=step)
        for step in [5, 3, 3, -1, 0, -100, 2**40, 2**63 - 1, 5]:
            self.metric(run, "steps", self.random.random(), timestamp=START, step=step)
        for _ in range(3):
            self.metric(run, "repeated", 0.25, timestamp=START, step=1)
        self.metric(run, "epoch", 1.0, timestamp=0)
        for key in ["a b", "deep/er/est", "é", "m" * 250, "ends.yaml", ".hid", " lead", "trail ", "a/..b", "-", "_"]:
            self.metric(run, key, self.random.gauss(0, 1))
        if VERSION < (2, 0):
            for value in [7, 2**53, 2**70, -3]:
                self.metric(run, "ints", value)
            for _ in range(5):
                self.metric(run, "singles", ShortFloat(self.random.random()))
        else:
            self.metric(run, "a.b:c-d_e", 1)
            self.metric(run, "bool", True)
            self.metric(run, "text", "1.5")
        self.fill(self.run(experiment, "longer"), 300)

    def artifacts(self, experiment):
        run = self.run(experiment, "artifacts")
        self.client.log_text(run, "héllo\n", "text file.txt")
        self.client.log_dict(run, {"b": [1, 2], "a": None}, "deep/er/dict.json")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "bytes.bin"
            path.write_bytes(bytes(self.random.getrandbits(8) for _ in range(5000)))
            self.client.log_artifact(run, str(path), "日本 dir")
            (Path(scratch) / "empty").touch()
            self.client.log_artifacts(run, scratch, "folder")

    def datasets(self, experiment):
        from mlflow.entities import Dataset, DatasetInput, InputTag

        schema = json.dumps({"mlflow_colspec": [{"type": "double", "name": f"c {i}"} for i in range(20)]})
        used = [
            DatasetInput(
                Dataset(name, digest, "local", json.dumps({"uri": f"/data/{name}"}), schema, '{"num_rows": 9}'),
                [InputTag("mlflow.data.context", context)] if context else [],
            )
            for name, digest, context in [("train set", "d1g357", "training"), ("eval", "00112233", None)]
        ]
        first, second = self.run(experiment, "data sets 1"), self.run(experiment, "data sets 2")
        self.client.log_inputs(first, used)
        self.client.log_inputs(second, used[:1])
        return first

    def registry(self, run):
        client = self.client
        client.create_registered_model("Reg A", tags={"k": "v"}, description="line 1\nline 2: x")
        client.create_registered_model("1e3")
        for number in range(2):
            client.create_model_version("Reg A", f"{self.dest.as_uri()}/m{number}", run, description=f"v {number}")
        client.set_model_version_tag("Reg A", "1", "checked", "yes")
        if VERSION >= (2, 3):
            client.set_registered_model_alias("Reg A", "champion", "1")
        client.update_model_version("Reg A", "2", "changed")
        client.rename_registered_model("1e3", "renamed")
        client.create_registered_model("gone")
        client.delete_registered_model("gone")

    def logged_models(self, experiment, run):
        from mlflow.entities import Dataset, DatasetInput, LoggedModelInput, LoggedModelOutput

        model = self.client.create_logged_model(
            experiment, name="net", source_run_id=run, tags={"t": "1"}, params={"depth": "3"}, model_type="plain"
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        other = self.client.create_logged_model(experiment, name="1e3")
        self.client.delete_logged_model(self.client.create_logged_model(experiment, name="gone").model_id)
        self.client.log_outputs(run, [LoggedModelOutput(model.model_id, step=4)])
        user = self.run(experiment, "uses a model")
        self.client.log_inputs(user, [], [LoggedModelInput(model.model_id)])
        for step in range(4):
            self.metric(user, "eval/acc", self.random.random(), step=step, model_id=model.model_id)
            self.metric(
                user, "eval/f1", self.random.random(), step=step, model_id=other.model_id,
                dataset_name="eval", dataset_digest="00112233",
            )

    def traces(self, experiment):
        # Through the fluent API: the client's own calls changed shape between 2.x and 3.x.
        mlflow.set_experiment(experiment_id=experiment)
        with mlflow.start_span("root") as span:
            span.set_inputs({"question": "what\n" + self.word()})
            with mlflow.start_span("child") as child:
                child.set_attribute("n", 1)
            span.set_outputs({"answer": 42})
        trace = mlflow.get_last_active_trace_id() if VERSION >= (3, 0) else span.request_id
        if VERSION >= (3, 0):
            mlflow.flush_trace_async_logging()
        self.client.set_trace_tag(trace, "reviewed", "no: 1")
        if VERSION >= (3, 2):
            from mlflow.entities import AssessmentSource

            source = AssessmentSource(source_type="HUMAN", source_id="someone@example.org")
            mlflow.log_feedback(trace_id=trace, name="good", value=0.5, rationale="so: so\nindeed", source=source)
            mlflow.log_expectation(trace_id=trace, name="answer", value={"n": [1, 2]}, source=source)

    def poison(self):
        experiment = self.client.create_experiment("poison")
        run = self.run(experiment, "float time and step")
        self.client.log_batch(run, metrics=[Metric("m", 1.0, START + 0.5, 1.5)])
        if VERSION >= (3, 0):
            run = self.run(experiment, "a blank in a field")
            self.client.log_metric(run, "m", 1.0, START, 5, dataset_name="two words", dataset_digest="d1g")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("dest")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--poison", action="store_true")
    options = arguments.parse_args()
    if os.path.exists(options.dest):
        sys.exit(f"write_tree.py: {options.dest} exists; name a directory that does not")
    writer = Writer(options.dest, options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        made, inside = writer.experiments()
        writer.runs(made[0])
        writer.odd_texts(made[1])
        writer.odd_metrics(made[1])
        writer.artifacts(made[0])
        writer.artifacts(inside)
        if VERSION >= (2, 4):
            run = writer.datasets(made[2])
            writer.registry(run)
        if VERSION >= (2, 14):
            writer.traces(made[3])
        if VERSION >= (3, 0):
            writer.logged_models(made[2], run)
        if options.poison:
            writer.poison()
        os.chdir("/")
    directories = [path for parent in (writer.dest, writer.dest / ".trash") for path in parent.iterdir()]
    experiments = [path for path in directories if (path / "meta.yaml").is_file()]
    runs = [run for path in experiments for run in path.glob("*/meta.yaml")]
    print(json.dumps({"experiments": len(experiments), "runs": len(runs), "points": writer.points}))


if __name__ == "__main__":
    main()
