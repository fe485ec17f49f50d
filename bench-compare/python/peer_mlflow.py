"""MLflow's own stores, as classes (no HTTP): FileStore or SqlAlchemyStore."""
import logging, os, time

os.environ["MLFLOW_ALLOW_FILE_STORE"] = os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
logging.getLogger("alembic").setLevel(logging.ERROR)

from common import *
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType

if MODE == "file":
    from mlflow.store.tracking.file_store import FileStore
else:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

os.makedirs(DIRECTORY, exist_ok=True)
BATCH_STEPS = 100  # of ten keys: MLflow's limit of a batch
IDS = DIRECTORY + ".ids"


def connect():
    if MODE == "file":
        return FileStore(os.path.join(DIRECTORY, "mlruns"))
    return SqlAlchemyStore(f"sqlite:///{DIRECTORY}/mlflow.db", f"{DIRECTORY}/artifacts")


def close(store):
    if MODE == "sqlite":
        store.engine.dispose()


def start_run(experiment, name):
    return store.create_run(experiment, "user", START_MS, [], name).info.run_id


def remember(ids):
    with open(IDS, "w") as f:
        f.write("\n".join(ids))


def remembered():
    with open(IDS) as f:
        return f.read().split()


def as_run(run):
    """Params, tags, and of each metric step, timestamp and value."""
    latest = {m.key: (m.step, m.timestamp, m.value) for m in run.data._metric_objs}
    return run.data.params, run.data.tags, latest


def log_long_run():
    timestamps, values = long_run()
    say_and_wait("ready")
    run = start_run(store.create_experiment("compare"), "0")
    keys = [f"train/loss_{k}" for k in range(KEYS)]
    cpu, started = time.process_time(), clock()
    for at in range(0, STEPS, BATCH_STEPS):
        store.log_batch(run, [Metric(keys[k], values[k][i], timestamps[i], i)
                              for i in range(at, at + BATCH_STEPS) for k in range(KEYS)], [], [])
    ingested("us_per_point", started, cpu, STEPS * KEYS / 1e6, STEPS * KEYS, lambda: close(store))
    remember([run])


def log_small_runs():
    runs = list(small_runs())
    say_and_wait("ready")
    ids = [store.create_experiment("compare")]
    cpu, started = time.process_time(), clock()
    for number, params, tags, metrics in runs:
        run = start_run(ids[0], str(number))
        store.log_batch(run, [Metric(f"m{m}", metrics[m][s], timestamp(number, s), s)
                              for s in range(RUN_STEPS) for m in range(METRICS)],
                        [Param(k, v) for k, v in params.items()], [RunTag(k, v) for k, v in tags.items()])
        store.update_run_info(run, RunStatus.FINISHED, START_MS + 1, None)
        ids.append(run)
    ingested("ms_per_run", started, cpu, RUNS / 1e3, RUNS * METRICS * RUN_STEPS, lambda: close(store))
    remember(ids)


def open_and_read():
    global store
    store = connect()
    return store, as_run(store.get_run(number_500))


if WORKLOAD == "R4":
    number_500 = remembered()[1 + RUNS // 2]
    say_and_wait("ready")
    check_run(opened(open_and_read, close), *list(small_runs())[RUNS // 2])
    raise SystemExit
if WORKLOAD not in ("W1", "W2", "W3"):
    ids = remembered()
    say_and_wait("ready")
store = connect()
if WORKLOAD == "W1":
    log_long_run()
elif WORKLOAD == "W2":
    timestamps, values = long_run()
    say_and_wait("ready")
    run = start_run(store.create_experiment("compare"), "0")
    log = lambda key, step: store.log_metric(run, Metric(f"train/loss_{key}", values[key][step], timestamps[step], step))
    made = calls(log)
    back = sum(len(store.get_metric_history(run, f"train/loss_{k}")) for k in range(KEYS))
    check(back == made, "points are missing")
elif WORKLOAD == "W3":
    log_small_runs()
elif WORKLOAD == "R1":
    history = timed(lambda: store.get_metric_history(ids[0], f"train/loss_{KEY}"))
    check_history(sorted((m.step, m.timestamp, m.value) for m in history))
elif WORKLOAD == "R2":
    found = timed(lambda: store.search_runs([ids[0]], "", ViewType.ACTIVE_ONLY, 1000, ["attributes.start_time DESC"]))
    check_runs({int(run.info.run_name): as_run(run) for run in found})
else:
    where = f"metrics.m3 < {M3_BELOW} and params.p1 = 'y'"
    found = timed(lambda: store.search_runs([ids[0]], where, ViewType.ACTIVE_ONLY, TOP, ["metrics.m3 DESC"]))
    check_top([(int(run.info.run_name), as_run(run)) for run in found])
