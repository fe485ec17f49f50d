"""Makes an `mlruns` tree without MLflow, as the three generations of MLflow would have left it behind.

    <venv>/bin/python make_tree.py DEST [--runs 50] [--keys 20] [--lines-max 1000000] [--points-total N]
                                   [--seed 1] [--damage none|runs|all]

It shares no code with the program under test or with MLflow: what it writes follows from the layout alone. PyYAML
with libyaml must be importable, as MLflow's YAML is that dumper's. The same arguments give the same bytes anywhere.

In the tree: experiments with ids of both generations, deleted ones in `.trash`, runs in the shape of MLflow 1, 2 and
3, deleted runs, params and tags with odd bytes, nested keys, data sets, a logged model with lines of 4 and 6 fields,
artifacts, empty directories and files that MLflow ignores. Metric files have a long-tailed length (the longest has
--lines-max lines) and, one after the other, every spelling of a number that MLflow reads (SPELLINGS, below).

--damage runs (the default) adds an experiment of its own with runs MLflow cannot read; its other experiments stay
readable. --damage all adds an illegal directory and broken YAML at the root, after which MLflow lists nothing.

Prints one line of JSON: counts of what was written, and the seconds it took.
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import random
import struct
import sys
import time
from pathlib import Path

import yaml

START = 1690000000000
I64_MAX, I64_MIN = 2**63 - 1, -(2**63)
# So many different texts a metric file has at most, where making one is slow and where it is fast.
BLOCK, LONG = 1 << 12, 1 << 16

KEYS = ["loss", "train/loss", "val/loss", "val/acc", "lr", "system/gpu 0/util", "epoch", "grad-norm", "é/ü", "a b c"]
KEYS += ["deep/er/and/deeper", "ends.yaml", ".hidden", "x" * 200, "_", "-", "trail ", " lead", "a/..b", "日本/値"]


# --- The text of numbers ---------------------------------------------------------------------------------------


def single(value):
    """The shortest digits that give back this f32, in Python's layout: how MLflow 1 wrote a numpy.float32."""
    (value,) = struct.unpack("<f", struct.pack("<f", value))
    for digits in range(1, 10):
        short = float("%.*g" % (digits, value))
        if struct.pack("<f", short) == struct.pack("<f", value):
            return repr(short)
    return repr(value)


def bits(rng):
    """Any finite f64, every exponent as likely as any other; subnormals among them."""
    while True:
        (value,) = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))
        if math.isfinite(value):
            return value


def walk(rng, lines):
    value, texts = rng.uniform(0.5, 8), []
    for _ in range(min(lines, LONG)):
        value = value * (1 - 1e-4) + rng.gauss(0, 0.01)
        texts.append(repr(value))
    return texts


def ramp(rng, lines):
    top, warm = rng.choice([1e-3, 3e-4, 0.1]), max(1, lines // 10)
    return [repr(top * min(1.0, (i + 1) / warm) * (1 - i / (lines + 1))) for i in range(min(lines, LONG))]


def subnormal(rng):
    return rng.choice([-1, 1]) * 5e-324 * rng.randrange(1, 2**52)


# Name -> function (rng, lines) -> texts; a file longer than its texts begins again with the first.
SPELLINGS = {
    # What MLflow 2 and 3 write: Python's repr of a float.
    "walk": walk,
    "ramp": ramp,
    "constant": lambda rng, lines: [repr(round(rng.random(), 3))],
    "fraction": lambda rng, lines: [repr(rng.randrange(0, 257) / 256) for _ in range(min(lines, BLOCK))],
    "decimal": lambda rng, lines: [repr(round(rng.uniform(0, 100), 2)) for _ in range(min(lines, BLOCK))],
    "whole": lambda rng, lines: [repr(float(i)) for i in range(min(lines, LONG))],
    "any bits": lambda rng, lines: [repr(bits(rng)) for _ in range(min(lines, BLOCK))],
    "exponents": lambda rng, lines: [repr(rng.uniform(-10, 10) * 10.0 ** rng.randrange(-30, 30)) for _ in range(min(lines, BLOCK))],
    "subnormal": lambda rng, lines: [repr(subnormal(rng)) for _ in range(min(lines, BLOCK))],
    "special": lambda rng, lines: rng.choices(
        ["nan", "inf", "-inf", "-0.0", "0.0", "5e-324", "-5e-324", "1.7976931348623157e+308", "1.0"]
        + ["2.2250738585072014e-308", "1e+16", "1000000000000000.0", "1e-05", "0.0001", repr(0.1 + 0.2)],
        k=min(lines, BLOCK),
    ),
    "rare nan": lambda rng, lines: [repr(rng.random()) if rng.random() > 0.01 else "nan" for _ in range(min(lines, BLOCK))],
    "widened single": lambda rng, lines: [
        repr(struct.unpack("<f", struct.pack("<f", rng.gauss(0, 1)))[0]) for _ in range(min(lines, BLOCK))
    ],
    # What MLflow 1 wrote besides: whatever str() made of the number it was given.
    "integer": lambda rng, lines: [str(rng.randrange(-5, 100000)) for _ in range(min(lines, BLOCK))],
    "long integer": lambda rng, lines: rng.choices(["9007199254740993", str(2**64), str(10**300), "-0", "0"], k=min(lines, 64)),
    "single": lambda rng, lines: [single(rng.gauss(0, 1)) for _ in range(min(lines, BLOCK))],
    "mixed": lambda rng, lines: list(
        itertools.chain.from_iterable((str(i), repr(rng.random()), single(rng.random())) for i in range(min(lines, BLOCK)))
    ),
    # What nobody's MLflow wrote, but float() takes it, so MLflow reads it.
    "17 digits": lambda rng, lines: ["%.17g" % rng.random() for _ in range(min(lines, BLOCK))],
    "foreign": lambda rng, lines: rng.choices(
        ["NaN", "Infinity", "-INF", "+1.5", "1_000.5", "+1E5", "1.", ".5", "1.50", "00.1", "1e5", "1E-7", "-nan", "1e400"],
        k=min(lines, BLOCK),
    ),
}


def steps(rng, lines, kind):
    if kind == "odd":
        pool = [0, -1, -100, I64_MAX, I64_MIN, 1 << 40, 7, 7, 3]
        return itertools.islice(itertools.cycle(pool), lines)
    first, by = (rng.randrange(0, 1000), rng.choice([1, 1, 10, 100])) if kind == "strided" else (0, 1)
    return range(first, first + by * lines, by)


def times(rng, lines, kind):
    """Milliseconds: steady, with jitter, all the same, or now and then backwards."""
    base = START + rng.randrange(0, 10**9)
    if kind == "same":
        return itertools.repeat(base, lines)
    every = rng.randrange(1, 3000)
    if kind == "steady":
        return range(base, base + every * lines, every)
    jitter = [rng.randrange(-every if kind == "back" else 0, every + 1) for _ in range(997)]
    return map(int.__add__, range(base, base + every * lines, every), itertools.cycle(jitter))


def metric_lines(rng, lines, spelling, suffix="", step_kind=None, fields=3):
    again = lines > 10 and rng.random() < 0.2
    lines -= 2 * again
    texts = itertools.cycle(SPELLINGS[spelling](rng, lines))
    when = times(rng, lines, rng.choice(["steady", "jitter", "jitter", "same", "back"]))
    if fields == 2:
        columns, form = (when, texts), "%d %s\n"
    else:
        kind = step_kind or rng.choice(["plain", "plain", "strided"])
        columns, form = (when, texts, steps(rng, lines, kind)), f"%d %s %d{suffix}\n"
    text = "".join(map(form.__mod__, zip(*columns)))
    if again:
        # An early point logged twice more.
        line = text.split("\n", 2)[1] + "\n"
        text += line + line
    return text


def lengths(rng, files, longest, total):
    """Long-tailed: most files short, a few as long as allowed; `total` sets the sum, nearly."""
    shape = sorted((rng.paretovariate(0.55) for _ in range(files)), reverse=True)
    # One number decides the scale; found by halving, as the cap bends the sum.
    wanted = total if total is not None else min(7_000_000, files * longest)
    low, high = 0.0, float(longest)
    for _ in range(60):
        scale = (low + high) / 2
        if sum(min(longest, math.ceil(item * scale)) for item in shape) > wanted:
            high = scale
        else:
            low = scale
    counts = [min(longest, math.ceil(item * low)) for item in shape]
    if total is None and counts:
        counts[0] = longest
    rng.shuffle(counts)
    return counts


# --- The files -------------------------------------------------------------------------------------------------


class Tree:
    def __init__(self, dest, root_uri):
        self.dest = os.fsencode(dest)
        self.root_uri = root_uri
        self.count = dict.fromkeys(["experiments", "runs", "metric_files", "lines", "params", "tags", "bytes"], 0)

    def path(self, *parts):
        return os.path.join(self.dest, *(part if isinstance(part, bytes) else part.encode() for part in parts))

    def directory(self, *parts):
        os.makedirs(self.path(*parts), exist_ok=True)

    def file(self, content, *parts):
        path = self.path(*parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = content.encode() if isinstance(content, str) else content
        with open(path, "wb") as file:
            file.write(content)
        self.count["bytes"] += len(content)

    def yaml(self, content, *parts):
        text = yaml.dump(
            content, Dumper=yaml.CSafeDumper, default_flow_style=False, allow_unicode=True, sort_keys=True
        )
        self.file(text, *parts)

    def metric(self, text, *parts):
        self.file(text, *parts)
        self.count["metric_files"] += 1
        self.count["lines"] += text.count("\n")

    def params(self, values, *parts):
        for key, value in values.items():
            self.file(value, *parts, "params", key)
        self.count["params"] += len(values)

    def tags(self, values, *parts):
        for key, value in values.items():
            self.file(value, *parts, "tags", key)
        self.count["tags"] += len(values)


def identity(rng):
    return "%032x" % rng.getrandbits(128)


def experiment(tree, rng, id, name, generation, place=(), deleted=False, tags=None, leak=False, location=None):
    meta = {
        "artifact_location": location or f"{tree.root_uri}/{id}",
        "experiment_id": id,
        # MLflow 1 moved a deleted experiment and wrote nothing.
        "lifecycle_stage": "deleted" if deleted and generation > 1 else "active",
        "name": name,
    }
    if generation > 1:
        meta["creation_time"] = START + rng.randrange(10**9)
        meta["last_update_time"] = meta["creation_time"] + rng.randrange(10**6)
    if generation > 2:
        meta.update(workspace="default", trace_location=None, effective_trace_archival_retention=None)
    if leak:
        meta["tags"] = dict(tags or {})
    tree.yaml(meta, *place, id, "meta.yaml")
    if tags:
        tree.tags(tags, *place, id)
    tree.count["experiments"] += 1
    return meta


def run(tree, rng, place, experiment, generation, name, status=3, deleted=False, location=None):
    id = identity(rng)
    began = START + rng.randrange(10**9)
    meta = {
        "artifact_uri": f"{location or tree.root_uri + '/' + experiment}/{id}/artifacts",
        "end_time": None if status in (1, 2) else began + rng.randrange(10**8),
        "entry_point_name": "",
        "experiment_id": experiment,
        "lifecycle_stage": "deleted" if deleted else "active",
        "run_id": id,
        "source_name": "",
        "source_type": 4,
        "source_version": "",
        "start_time": began,
        "status": status,
        "tags": [],
        "user_id": rng.choice(["ada", "root", "user name", "1e3", "日本"]),
    }
    if generation == 1:
        meta["name"] = ""
    else:
        meta["run_name"] = name
        if deleted:
            meta["deleted_time"] = began + 10**8
    if generation < 3:
        meta["run_uuid"] = id
    tree.yaml(meta, *place, id, "meta.yaml")
    for folder in ("artifacts", "metrics", "params"):
        tree.directory(*place, id, folder)
    tree.tags({"mlflow.runName": name, "mlflow.user": meta["user_id"], "mlflow.source.type": "LOCAL"}, *place, id)
    tree.count["runs"] += 1
    return id


ODD_PARAMS = {
    "lr": "0.001", "multi": "a\nb\r\nc\rd\n", "nul": b"a\0b\0", "empty": "", "uni": "é 日本 🚀\u2028\ufeff", "sp ace": "  ",
    "dir/sub/key": "nested", "meta.yaml": "a: [not meta", ".hidden": "h", "trail ": "t", "é": "e", "long": "y" * 20000,
    "control": bytes(range(1, 32)), "yaml": "--- !!python/none\n...", "k" * 250: "long key", "a/..b": "dots",
}  # fmt: skip
ODD_TAGS = {
    "mlflow.note.content": "# Title\n\n* list\n\ttab\n", "t/nested/tag": "x", "empty": "", "crlf": "a\r\n",
    "mlflow.log-model.history": json.dumps([{"run_id": "x", "flavors": {"a": {}}}]), "big": "z" * 9000,
}  # fmt: skip
NAMES = ["mnist", "1e3", "true", "017", "12:30:45", "it's", 'dq " q', "nl\nin", "tab\tin", " lead", "日本 🚀", "x " * 90]
NAMES += ["=", "~", "- x", "# y", "a: b", "\x07bell", "nbsp\u00a0", "\u0085nel", "2024-01-01", "0o17", "...", "{a}"]


def artifacts(tree, rng, *place):
    tree.file("text\r\n", *place, "artifacts", "text file.txt")
    tree.file(bytes(rng.getrandbits(8) for _ in range(rng.randrange(1, 9000))), *place, "artifacts", "日本", "b.bin")
    tree.file("", *place, "artifacts", "deep/er", "empty")
    tree.directory(*place, "artifacts", "empty dir")


def datasets(tree, rng, exp, runs):
    """Data sets of an experiment, each used by some of its runs; names, digests and folders as MLflow makes them."""
    for name, digest in [("train set", "d1g357"), ("eval", "00112233"), ("1e3", "0o17")]:
        folder = hashlib.md5((name + digest).encode()).hexdigest()
        schema = json.dumps({"mlflow_colspec": [{"type": "double", "name": f"column {i}"} for i in range(30)]})
        tree.yaml(
            {"digest": digest, "name": name, "profile": rng.choice([None, '{"num_rows": 9}']), "schema": schema}
            | {"source": json.dumps({"uri": "/data/a b/" + name}), "source_type": "local"},
            exp, "datasets", folder, "meta.yaml",
        )  # fmt: skip
        for run in runs:
            used = hashlib.md5((folder + run).encode()).hexdigest()
            tags = {"mlflow.data.context": "training"} if rng.random() < 0.5 else {}
            tree.yaml(
                {"destination_id": folder, "destination_type": "RUN", "source_id": folder}
                | {"source_type": "DATASET", "tags": tags},
                exp, run, "inputs", used, "meta.yaml",
            )  # fmt: skip


def logged_model(tree, rng, exp, run, lines):
    id = "m-" + identity(rng)
    place = (exp, "models", id)
    at = START + rng.randrange(10**9)
    tree.yaml(
        {"artifact_location": f"{tree.root_uri}/{exp}/models/{id}/artifacts", "creation_timestamp": at}
        | {"experiment_id": exp, "last_updated_timestamp": at + 5, "model_id": id, "model_type": None, "name": "1.0"}
        | {"source_run_id": run, "status": 2, "status_message": None},
        *place, "meta.yaml",
    )  # fmt: skip
    tree.file("{}\n", *place, "artifacts", "MLmodel")
    tree.params({"depth": "3", "odd": "a\r\n"}, *place)
    tree.tags({"stage": "best"}, *place)
    tree.metric(metric_lines(rng, lines, "walk", f" {run}"), *place, "metrics", "acc")
    tree.metric(metric_lines(rng, lines, "decimal", f" {run} eval 00112233"), *place, "metrics", "val/f1")
    tree.yaml(
        {"destination_id": id, "destination_type": "MODEL_OUTPUT", "source_id": id, "source_type": "RUN_OUTPUT"}
        | {"step": 4, "tags": {}},
        exp, run, "outputs", id, "meta.yaml",
    )  # fmt: skip


def clutter(tree, exp, run):
    """What MLflow walks past."""
    tree.file(b"\0\0\0\1Bud1", ".DS_Store")
    tree.file("notes\n", "README with spaces.md")
    tree.file("x", exp, ".DS_Store")
    tree.file("x", exp, run, "stray file~")
    tree.directory(exp, "not_a_run")
    tree.directory(exp, run, "metrics", "empty", "nest")
    tree.directory(exp, run, "params", "empty")
    tree.directory(exp, run, "tags", "left", "over")
    tree.directory("no_experiment_here")


# Name -> content of a metric file that MLflow refuses, or does not read as it was meant.
BROKEN_METRICS = {
    "torn": "1690000000000 0.5 0\n1690000000001 0.25 1\n16900000",
    "no-newline": "1690000000000 0.5 0\n1690000000001 0.25 1",
    "blank-line": "1690000000000 0.5 0\n\n1690000000001 0.25 1\n",
    "float-time": "1690000000000.5 1.0 1.5\n1690000000001 1.0 1\n",
    "two-blanks": "1690000000000  0.5 0\n",
    "tabs": "1690000000000\t0.5\t0\n",
    "one-field": "1690000000000\n",
    "four-fields": "1690000000000 1.0 1 x\n",
    "seven-fields": "1690000000000 1.0 1 two words d1g 7 8\n",
    "hex": "1690000000000 0x10 0\n",
    "words": "now then 1\n",
    "empty": "",
    "newline-only": "\n",
    "not-utf8": b"1690000000000 0.5 0\n\xff\xfe\x00 1 1\n",
    "nuls": b"1690000000000 0.5 0\n" + b"\0" * 4096,
    "oversize": f"{10**30} 1.0 {10**25}\n{-(10**20)} 2.0 {I64_MIN - 1}\n",
    "crlf": "1690000000000 0.5 0\r\n1690000000001 0.25 1\r\n",
    "blanks-around": "  1690000000000 0.5 0 \n",
    "signs": "+1690000000000 0.5 +3\n1_690_000_000_000 0.5 1_0\n",
    "huge-text": "1690000000000 " + "9" * 5000 + " 0\n",
    ".DS_Store": b"\0\0\0\1Bud1",
}
BROKEN_META = {
    "bad-yaml": "a: [1, 2\nb: }\n",
    "empty": "",
    "not-a-mapping": "- 1\n- 2\n",
    "binary": bytes(range(256)),
    "no-status": None,
    "text-status": None,
    "duplicate-key": None,
}


def damage(tree, rng):
    exp = "777"
    experiment(tree, rng, exp, "damaged", 2)
    for name, content in BROKEN_METRICS.items():
        id = run(tree, rng, (exp,), exp, 2, "metric " + name)
        tree.metric(metric_lines(rng, 20, "walk"), exp, id, "metrics", "good")
        content = content.encode() if isinstance(content, str) else content
        tree.file(content, exp, id, "metrics", name)
    id = run(tree, rng, (exp,), exp, 2, "values that are not text")
    tree.file(b"\xff\xfe\xfd", exp, id, "params", "not-utf8")
    tree.file(b"\xc3", exp, id, "tags", "half")
    tree.file("x", exp, id, "params", b"name-\xff\xfe")
    tree.file("1690000000000 1.0 1\n", exp, id, "metrics", b"name-\xe9")
    tree.file("x", exp, id, "params", "bad*key")
    for name, content in BROKEN_META.items():
        id = run(tree, rng, (exp,), exp, 2, "meta " + name)
        path = tree.path(exp, id, "meta.yaml")
        with open(path, "rb") as file:
            text = file.read()
        if name == "no-status":
            content = text.replace(b"status: 3\n", b"")
        elif name == "text-status":
            content = text.replace(b"status: 3\n", b"status: FINISHED\n")
        elif name == "duplicate-key":
            content = text + b"status: 4\n"
        tree.file(content, exp, id, "meta.yaml")
    # A run under another's name, one of another experiment, and one without its meta.yaml.
    id = run(tree, rng, (exp,), exp, 2, "misnamed")
    os.rename(tree.path(exp, id), tree.path(exp, identity(rng)))
    run(tree, rng, (exp,), "0", 2, "strayed")
    id = run(tree, rng, (exp,), exp, 2, "headless")
    os.remove(tree.path(exp, id, "meta.yaml"))


def damage_root(tree, rng):
    tree.file("x", "junk dir!", "file")
    tree.file("name: [unfinished\n", "778", "meta.yaml")
    meta = experiment(tree, rng, "779", "another id within", 2)
    tree.yaml(dict(meta, experiment_id="780"), "779", "meta.yaml")
    experiment(tree, rng, "781", "twice", 2)
    experiment(tree, rng, "782", "twice", 2)


def build(tree, rng, options):
    tree.directory(".trash")
    experiment(tree, rng, "0", "Default", 1)
    homes = []
    for number in range(max(2, min(6, options.runs // 8))):
        generation = number % 3 + 1
        id = str(number + 1) if generation == 1 else str(rng.randrange(10**17, 10**18))
        tags = {"team": "a\nb", "mlflow.note.content": "x: 1\n", "num": "7"} if number % 2 else None
        location = "s3://bucket/a path" if number == 4 else None
        experiment(tree, rng, id, f"home {number}", generation, tags=tags, leak=number == 3, location=location)
        homes.append((id, generation, location))
    for number, name in enumerate(NAMES):
        experiment(tree, rng, str(100 + number), name, number % 3 + 1)
    for number in range(3):
        id = str(200 + number)
        experiment(tree, rng, id, f"deleted {number}", number + 1, (".trash",), True, {"k": "v"}, leak=number > 0)
        gone = run(tree, rng, (".trash", id), id, number + 1, "went along", deleted=number > 0)
        tree.metric(metric_lines(rng, 30, "walk"), ".trash", id, gone, "metrics", "loss")

    keys = KEYS[: options.keys] + [f"more/{i % 7}/{i}" for i in range(options.keys - len(KEYS))]
    counts = iter(lengths(rng, options.runs * len(keys), options.lines_max, options.points_total))
    spelling = itertools.cycle(SPELLINGS)
    runs = {}
    parent = None
    for number in range(options.runs):
        id, generation, location = homes[number % len(homes)]
        # A name of every kind, all five statuses, some deleted, some below others.
        name = NAMES[number % len(NAMES)]
        new = run(tree, rng, (id,), id, generation, name, number % 5 + 1, number % 11 == 10, location)
        runs.setdefault(id, []).append(new)
        params = {f"p{i}": rng.choice(["0.1", "adam", "True", "None", "[1, 2]", "1e-3"]) for i in range(8)}
        tree.params(params | (ODD_PARAMS if number % 6 == 1 else {}), id, new)
        tags = {"mlflow.parentRunId": parent} if parent and number % 4 == 3 else {}
        tree.tags(tags | (ODD_TAGS if number % 5 == 2 else {}), id, new)
        parent = new
        if number % 9 == 4:
            artifacts(tree, rng, id, new)
        for key in keys:
            lines, kind = next(counts), next(spelling)
            suffix, fields, step_kind = "", 3, None
            if generation == 3 and rng.random() < 0.05:
                # A metric with its data set; MLflow 3 alone reads five fields.
                suffix = " eval 00112233"
            elif generation == 1 and rng.random() < 0.03:
                fields = 2
            elif lines < 1000 and rng.random() < 0.1:
                step_kind = "odd"
            if lines:
                text = metric_lines(rng, lines, kind, suffix, step_kind, fields)
                tree.metric(text, id, new, "metrics", key)

    newest = [id for id, generation, _ in homes if generation == 3 and id in runs] or [homes[-1][0]]
    for id, used in runs.items():
        if id != homes[0][0]:
            datasets(tree, rng, id, used[:2])
    if runs.get(newest[0]):
        logged_model(tree, rng, newest[0], runs[newest[0]][0], min(2000, options.lines_max))
    if runs:
        clutter(tree, homes[0][0], runs[homes[0][0]][0])
    # So that adding damage leaves every other byte as it was.
    if options.damage != "none":
        damage(tree, random.Random(options.seed + 1))
    if options.damage == "all":
        damage_root(tree, random.Random(options.seed + 2))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("dest")
    arguments.add_argument("--runs", type=int, default=50)
    arguments.add_argument("--keys", type=int, default=20)
    arguments.add_argument("--lines-max", type=int, default=1_000_000)
    arguments.add_argument("--points-total", type=int, help="about how many lines in all (default about 7 million)")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--damage", choices=["none", "runs", "all"], default="runs")
    arguments.add_argument("--root-uri", default="file:///srv/mlruns", help="what artifact locations begin with")
    options = arguments.parse_args()
    if Path(options.dest).exists():
        sys.exit(f"make_tree.py: {options.dest} exists; name a directory that does not")
    started = time.perf_counter()
    tree = Tree(options.dest, options.root_uri)
    build(tree, random.Random(options.seed), options)
    print(json.dumps(tree.count | {"seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()
