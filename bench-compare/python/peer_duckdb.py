"""DuckDB: bulk inserts of NumPy columns (its fast way in from Python), one thread."""
import os, time

import duckdb
import numpy as np

from common import *

os.makedirs(DIRECTORY, exist_ok=True)


def connect():
    connection = duckdb.connect(os.path.join(DIRECTORY, "store.duckdb"))
    connection.execute("set threads=1")
    return connection


def history():
    columns = c.execute(f"select step, ts, value from m where run = 0 and key = {KEY} order by step").fetchnumpy()
    return columns["step"], columns["ts"], columns["value"]


def runs_where(condition=""):
    runs = {}
    for place, table in enumerate(("params", "tags")):
        for run, key, value in c.execute(f"select run, key, value from {table} {condition}").fetchall():
            runs.setdefault(run, ({}, {}, {}))[place][key] = value
    for run, key, value, ts, step in c.execute(f"select run, key, value, ts, step from latest {condition}").fetchall():
        runs[run][2][key] = (step, ts, value)
    return runs


def top():
    found = c.execute(
        "select l.run from latest l join params p on p.run = l.run where l.key = 'm3' and l.value < ? and p.key = 'p1' "
        "and p.value = 'y' order by l.value desc limit ?", [M3_BELOW, TOP]).fetchall()
    numbers = [row[0] for row in found]
    runs = runs_where(f"where run in ({','.join(map(str, numbers))})")
    return [(number, runs[number]) for number in numbers]


def log_long_run(batch):
    timestamps, values = long_run()
    ts, vals = np.array(timestamps), np.array(values)
    steps, per = np.arange(STEPS), batch // KEYS
    keys, run = np.tile(np.arange(KEYS, dtype=np.int32), per), np.zeros(batch, dtype=np.int64)
    say_and_wait("ready")
    c.execute("create table m(run bigint, key integer, step bigint, ts bigint, value double)")
    cpu, started = time.process_time(), clock()
    for at in range(0, STEPS, per):
        df = {"run": run, "key": keys, "step": np.repeat(steps[at:at + per], KEYS), "ts": np.repeat(ts[at:at + per], KEYS),
              "value": np.ascontiguousarray(vals[:, at:at + per].T).ravel()}
        c.execute("insert into m select run, key, step, ts, value from df")
    ingested("us_per_point", started, cpu, STEPS * KEYS / 1e6, STEPS * KEYS, c.close)


def log_small_runs():
    runs = list(small_runs())
    say_and_wait("ready")
    c.execute("create table m(run bigint, key text, step bigint, ts bigint, value double)")
    c.execute("create table latest(run bigint, key text, value double, ts bigint, step bigint)")
    c.execute("create table params(run bigint, key text, value text)")
    c.execute("create table tags(run bigint, key text, value text)")
    names, last = np.array([f"m{m}" for m in range(METRICS)], dtype=object), RUN_STEPS - 1
    cpu, started = time.process_time(), clock()
    for number, params, tags, metrics in runs:
        values = np.array(metrics)
        c.execute("begin")
        df = {"run": np.full(METRICS * RUN_STEPS, number), "key": np.repeat(names, RUN_STEPS),
              "step": np.tile(np.arange(RUN_STEPS), METRICS),
              "ts": np.tile(timestamp(number, 0) + np.arange(RUN_STEPS) * 1000, METRICS), "value": values.ravel()}
        c.execute("insert into m select run, key, step, ts, value from df")
        df = {"run": np.full(METRICS, number), "key": names, "value": np.ascontiguousarray(values[:, last]),
              "ts": np.full(METRICS, timestamp(number, last)), "step": np.full(METRICS, last)}
        c.execute("insert into latest select run, key, value, ts, step from df")
        for table, pairs in (("params", params), ("tags", tags)):
            df = {"run": np.full(len(pairs), number), "key": np.array(list(pairs), dtype=object),
                  "value": np.array(list(pairs.values()), dtype=object)}
            c.execute(f"insert into {table} select run, key, value from df")
        c.execute("commit")
    ingested("ms_per_run", started, cpu, RUNS / 1e3, RUNS * METRICS * RUN_STEPS, c.close)


def open_and_read():
    global c
    c = connect()
    return c, runs_where(f"where run = {RUNS // 2}")[RUNS // 2]


if WORKLOAD == "R4":
    say_and_wait("ready")
    run = opened(open_and_read, lambda connection: connection.close())
    check_run(run, *list(small_runs())[RUNS // 2])
    raise SystemExit
c = connect()
if WORKLOAD in ("W1", "W1-10k"):
    log_long_run(10_000 if WORKLOAD == "W1-10k" else 1_000)
elif WORKLOAD == "W2":
    timestamps, values = long_run()
    say_and_wait("ready")
    c.execute("create table m(run bigint, key integer, step bigint, ts bigint, value double)")
    insert = lambda key, step: c.execute("insert into m values (0, ?, ?, ?, ?)",
                                         [key, step, timestamps[step], values[key][step]])
    made = calls(insert)
    check(c.execute("select count(*) from m").fetchone()[0] == made, "points are missing")
elif WORKLOAD == "W3":
    log_small_runs()
else:
    say_and_wait("ready")
    if WORKLOAD == "R1":
        steps, ts, values = timed(history)
        check_history(zip(steps.tolist(), ts.tolist(), values.tolist()))
    elif WORKLOAD == "R2":
        check_runs(timed(runs_where))
    else:
        check_top(timed(top))
