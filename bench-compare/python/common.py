"""What the Python peers share: the protocol of process.rs, clocks, durability, cold caches, and the data.

Called as: script MODE WORKLOAD PEER DIRECTORY [--quick]; BENCH_DATA names the directory with the data.
"""
import array, json, os, statistics, sys, time

MODE, WORKLOAD, _, DIRECTORY = sys.argv[1:5]
QUICK = "--quick" in sys.argv
KEYS, METRICS, RUN_STEPS = 10, 20, 10
STEPS = 10_000 if QUICK else 100_000
RUNS = 200 if QUICK else 1_000
CALL_SECONDS = 0.2 if QUICK else 4.0
QUESTIONS = 3 if QUICK else 5
START_MS = 1_760_000_000_000
M3_BELOW, TOP = 0.75, 100
KEY = 3
clock = time.perf_counter


def emit(metric, value):
    print(json.dumps({"metric": metric, "value": float(value)}), flush=True)


def say_and_wait(what):
    print(json.dumps({what: True}), flush=True)
    sys.stdin.readline()


def floats(name):
    values = array.array("d")
    with open(os.path.join(os.environ["BENCH_DATA"], name), "rb") as f:
        values.frombytes(f.read())
    return values


def long_run():
    """timestamps, and values by key"""
    timestamps = array.array("q", floats("timestamps.i64").tobytes())
    values = floats("values.f64")
    full = len(timestamps)
    return timestamps.tolist()[:STEPS], [values[k * full:k * full + STEPS].tolist() for k in range(KEYS)]


def small_runs():
    """(number, params, tags, values by metric and step) of each run"""
    values = floats("metrics.f64")
    with open(os.path.join(os.environ["BENCH_DATA"], "texts.tsv")) as f:
        for line, i in zip(f, range(RUNS)):
            _, *texts = line.rstrip("\n").split("\t")
            at = i * METRICS * RUN_STEPS
            metrics = [values[at + m * RUN_STEPS:at + (m + 1) * RUN_STEPS].tolist() for m in range(METRICS)]
            yield (i, {f"p{j}": t for j, t in enumerate(texts[:20])},
                   {f"tag{j}": t for j, t in enumerate(texts[20:])}, metrics)


def timestamp(run, step):
    return START_MS + run * 60_000 + step * 1000


def files():
    for root, _, names in os.walk(DIRECTORY):
        for name in names:
            yield os.path.join(root, name)


def sync_tree():
    for path in list(files()) + [root for root, *_ in os.walk(DIRECTORY)]:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        os.fsync(fd)
        os.close(fd)


def drop_cache():
    sync_tree()
    for path in files():
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def disk_bytes():
    stats = [os.stat(path) for path in files()]
    return min(sum(s.st_size for s in stats), sum(s.st_blocks * 512 for s in stats))


def ingested(name, started, cpu_started, units, points, close):
    """The end of W1 and W3: everything these peers commit is durable, or becomes so by a sync of the files."""
    emit_all = lambda prefix: emit(prefix + name, (clock() - started) / units)
    close()
    sync_tree()
    emit_all("")
    emit_all("closed_")
    emit("cpu_" + name, (time.process_time() - cpu_started) / units)
    say_and_wait("measured")
    emit("bytes_per_point", disk_bytes() / points)


def calls(call):
    """W2: `call(key, step)` until the time is over; clocks cost nothing beside these calls."""
    cpu, started, nanos = time.process_time(), clock(), []
    for step in range(STEPS):
        for key in range(KEYS):
            before = time.perf_counter_ns()
            call(key, step)
            nanos.append(time.perf_counter_ns() - before)
        if clock() - started > CALL_SECONDS:
            break
    emit("us_per_call", (clock() - started) / len(nanos) * 1e6)
    emit("cpu_us_per_call", (time.process_time() - cpu) / len(nanos) * 1e6)
    nanos.sort()
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1)):
        emit(f"{name}_us", nanos[min(int(len(nanos) * share), len(nanos) - 1)] / 1e3)
    say_and_wait("measured")
    return len(nanos)


def timed(question):
    """R1 to R3: asks several times, returns the last answer."""
    walls, cpus, answer = [], [], None
    for _ in range(QUESTIONS):
        answer = None
        cpu, started = time.process_time(), clock()
        answer = question()
        walls.append((clock() - started) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
    emit("first_ms", walls[0])
    emit("ms", statistics.median(walls))
    emit("cpu_ms", statistics.median(cpus))
    say_and_wait("measured")
    return answer


def opened(open_and_read, close):
    """R4: `open_and_read() -> (store, run)`, with files out of the page cache and in it; returns the last run."""
    for metric, is_cold in (("cold_ms", True), ("warm_ms", False)):
        walls = []
        for _ in range(QUESTIONS):
            if is_cold:
                drop_cache()
            started = clock()
            store, run = open_and_read()
            walls.append((clock() - started) * 1e3)
            close(store)
        emit(metric, statistics.median(walls))
    say_and_wait("measured")
    return run


def check(holds, what):
    if not holds:
        sys.exit(f"{MODE} {WORKLOAD}: {what}")


def check_history(points):
    """(step, timestamp, value) of `KEY`, as they came back"""
    timestamps, values = long_run()
    check(list(points) == list(zip(range(STEPS), timestamps, values[KEY])), "the history came back changed")


def check_run(run, number, params, tags, metrics):
    """`run`: (params, tags, {metric: (step, timestamp, value)})"""
    last = RUN_STEPS - 1
    latest = {f"m{m}": (last, timestamp(number, last), values[last]) for m, values in enumerate(metrics)}
    tags_back = {k: v for k, v in run[1].items() if not k.startswith("mlflow.")}
    check(run[0] == params and tags_back == tags and run[2] == latest, f"run {number} came back changed")


def check_runs(runs):
    """{number: run}"""
    expected = list(small_runs())
    check(len(runs) == len(expected), f"{len(runs)} runs")
    for number, *rest in expected:
        check_run(runs[number], number, *rest)


def check_top(runs):
    """[(number, run)] in the order of R3"""
    wanted = [r for r in small_runs() if r[1]["p1"] == "y" and r[3][3][RUN_STEPS - 1] < M3_BELOW]
    wanted.sort(key=lambda r: r[3][3][RUN_STEPS - 1], reverse=True)
    wanted = wanted[:TOP]
    check([number for number, _ in runs] == [r[0] for r in wanted], "other runs, or another order")
    for (_, run), (number, *rest) in zip(runs, wanted):
        check_run(run, number, *rest)
