//! `bench-import`: a generated `mlruns` tree goes in and comes out.
//!
//! Contract: the tree is what MLflow writes: every key of a run a file of `timestamp value step` lines. Half of the keys
//! have values of 15 to 17 digits, half short decimals; half of the runs log their keys together (equal timestamps).
//! Import and export run in processes of their own, each on one thread; the export must equal the tree.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use mlrs_db::Store;
use mlrs_db::mlruns::{ExportOptions, ImportOptions};

use crate::Outcome;
use crate::measure::{
    PeakMemory, Scratch, child, disk_usage, main_thread_seconds, number, option, process_seconds,
};

/// Lines of one file, unless `--lines-a-run` says how many those of a run have together.
const FILE_LINES: u64 = 100_000;
/// Files of one run.
const KEYS: u64 = 10;

/// xorshift64*: the same tree every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What runs are like.
struct Shape {
    /// In all.
    lines: u64,
    /// Of one file.
    file_lines: u64,
    /// Files of one run.
    keys: u64,
    params: u64,
}

impl Shape {
    /// `--lines N`, or `--runs N --lines-a-run M`: many small runs, with 2 metrics and 4 params each.
    fn of(args: &[String]) -> Result<Self, Box<dyn std::error::Error>> {
        let runs = number(args, "--runs", 0)?;
        if runs == 0 {
            let lines = number(args, "--lines", 100_000_000)?;
            return Ok(Self { lines, file_lines: FILE_LINES, keys: KEYS, params: 10 });
        }
        let of_run = number(args, "--lines-a-run", 4)?.max(2).next_multiple_of(2);
        Ok(Self { lines: runs * of_run, file_lines: of_run / 2, keys: 2, params: 4 })
    }
}

fn generate(tree: &Path, shape: &Shape) -> Result<u64, Box<dyn std::error::Error>> {
    let lines = shape.lines;
    fs::create_dir_all(tree.join("1"))?;
    fs::write(
        tree.join("1/meta.yaml"),
        "artifact_location: file:///nowhere/1\ncreation_time: 1700000000000\nexperiment_id: '1'\nlast_update_time: 1700000000000\nlifecycle_stage: active\nname: generated\n",
    )?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut left = lines;
    let mut run = 0u64;
    while left > 0 {
        let id = format!("{:016x}{:016x}", random.next(), random.next());
        let directory = tree.join("1").join(&id);
        for name in ["metrics", "params", "tags", "artifacts"] {
            fs::create_dir_all(directory.join(name))?;
        }
        fs::write(
            directory.join("meta.yaml"),
            format!(
                "artifact_uri: file:///nowhere/1/{id}/artifacts\nend_time: 1700000900000\nentry_point_name: ''\nexperiment_id: '1'\nlifecycle_stage: active\nrun_id: {id}\nrun_name: generated-{run}\nsource_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 1700000000000\nstatus: 3\ntags: []\nuser_id: nobody\n"
            ),
        )?;
        fs::write(directory.join("tags/mlflow.runName"), format!("generated-{run}"))?;
        for param in 0..shape.params {
            fs::write(directory.join(format!("params/p{param}")), format!("{}", random.unit()))?;
        }
        let together = run.is_multiple_of(2);
        let times = random.next();
        for key in 0..shape.keys {
            let count = left.min(shape.file_lines);
            if count == 0 {
                break;
            }
            left -= count;
            let mut clock = Random(if together { times } else { random.next() });
            let mut file = BufWriter::with_capacity(
                (shape.file_lines as usize * 64).min(1 << 20),
                fs::File::create(directory.join(format!("metrics/m{key}")))?,
            );
            let mut timestamp = 1_700_000_000_000u64 + run * 1_000_000;
            let mut walk = 2.0 + random.unit();
            for step in 0..count {
                timestamp += 40 + clock.next() % 7;
                walk = 0.9999 * walk + 0.02 * (random.unit() - 0.5) + 0.0001;
                let value = match key % 4 {
                    // A double as computed: 15 to 17 digits.
                    0 | 2 => walk,
                    1 => (walk * 1e4).round() / 1e4,
                    _ => f64::from((walk * 1000.0) as u32) / 1000.0,
                };
                writeln!(file, "{timestamp} {value:?} {step}")?;
            }
            file.flush()?;
        }
        run += 1;
    }
    Ok(run)
}

/// What a child prints in its last line: points, bytes, wall seconds, process CPU, thread CPU, MiB.
fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}

pub fn run(args: &[String]) -> Outcome {
    let shape = Shape::of(args)?;
    let given = option(args, "--tree");
    let scratch = Scratch::new(args, "bench-import")?;
    let tree = given.map_or_else(|| scratch.path.join("mlruns"), Into::into);
    if !tree.exists() {
        let started = Instant::now();
        let runs = generate(&tree, &shape)?;
        println!("generated: {} lines in {runs} runs, {:.1} s", shape.lines, started.elapsed().as_secs_f64());
    }
    let (bytes, _) = disk_usage(&tree)?;
    let (store, out) = (scratch.path.join("store"), scratch.path.join("out"));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let imported = child(&["child-import", &text(&tree), &text(&store)])?;
    print!("{imported}");
    let (_, stored) = disk_usage(&store)?;
    println!("bytes in {bytes}, stored {stored} ({:.1} times less)", bytes as f64 / stored as f64);
    let exported = child(&["child-export", &text(&store), &text(&out)])?;
    print!("{exported}");
    let differences = Command::new("diff").args(["-rq", &text(&tree), &text(&out)]).output()?;
    if !differences.status.success() || !differences.stdout.is_empty() {
        return Err(format!("the export differs: {}", String::from_utf8_lossy(&differences.stdout)).into());
    }
    println!("diff -r: equal");
    for (what, line) in [("import", last_line(&imported)), ("export", last_line(&exported))] {
        let field =
            |at: usize| line.split_whitespace().nth(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        let (points, cpu, mib) = (field(0), field(3), field(5));
        println!(
            "{what}: {:.2} M points/s per core (goal 5), peak {mib:.0} MiB (goal 200)",
            points / cpu / 1e6
        );
    }
    Ok(())
}

fn report(points: u64, bytes: u64, started: Instant, before: ((f64, f64), f64), memory: PeakMemory) {
    let wall = started.elapsed().as_secs_f64();
    let (user, system) = process_seconds();
    let (cpu, thread) = (user + system - before.0.0 - before.0.1, main_thread_seconds() - before.1);
    let mib = memory.finish();
    println!(
        "  {points} points: {:.2} M/s by the clock, {:.2} M/s of process CPU ({:.1} s user, {:.1} s system), {:.2} M/s of the calling thread's CPU",
        points as f64 / wall / 1e6,
        points as f64 / cpu / 1e6,
        user - before.0.0,
        system - before.0.1,
        points as f64 / thread / 1e6
    );
    println!("{points} {bytes} {wall:.3} {cpu:.3} {thread:.3} {mib:.1}");
}

/// `child-import TREE STORE`.
pub fn child_import(args: &[String]) -> Outcome {
    let [tree, store] = args else { return Err("a tree and a store".into()) };
    let memory = PeakMemory::start();
    let before = (process_seconds(), main_thread_seconds());
    let started = Instant::now();
    let store = Store::open(store)?;
    let report_in = store.import(Path::new(tree), &ImportOptions::default(), &mut |_| {})?;
    println!(
        "import: {} runs, {} problems, {:.2} s until the report",
        report_in.runs,
        report_in.problems_total,
        started.elapsed().as_secs_f64()
    );
    store.close()?;
    report(report_in.points, report_in.bytes, started, before, memory);
    Ok(())
}

/// `child-export STORE TARGET`.
pub fn child_export(args: &[String]) -> Outcome {
    let [store, target] = args else { return Err("a store and a target".into()) };
    let memory = PeakMemory::start();
    let before = (process_seconds(), main_thread_seconds());
    let started = Instant::now();
    let store = Store::options().read_only(true).open(store)?;
    let out = store.export(Path::new(target), &ExportOptions::default(), &mut |_| {})?;
    println!("export: {} runs", out.runs);
    report(out.points, 0, started, before, memory);
    Ok(())
}
