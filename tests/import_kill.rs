//! An import that is killed at any moment is completed by the next one: the store answers as if nothing had happened.
//!
//! The test runs this same program again with [`IMPORT`] set, kills it at a random moment (the seed is printed, and
//! `MLRS_SEED` sets it), and in the end imports once more without killing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use mlrs_db::mlruns::{ExportOptions, ImportOptions};
use mlrs_db::{Points, RunSearch, Store, ViewType};

const IMPORT: &str = "MLRS_IMPORT_KILL_STORE";
const TREE: &str = "MLRS_IMPORT_KILL_TREE";
/// Stores that are imported into, and how often each import is killed: twenty kills in all.
const STORES: u32 = 5;
const KILLS: u32 = 4;

/// The same name in every import: the tree's identity.
fn options() -> ImportOptions {
    ImportOptions { tree: Some("the tree".into()), ..ImportOptions::default() }
}

fn import(store: &Path, tree: &Path) {
    let store = Store::open(store).unwrap();
    let report = store.import(tree, &options(), &mut |_| {}).unwrap();
    assert_eq!(report.problems_total, 0, "{:?}", report.problems);
    store.close().unwrap();
}

/// What the killed processes run; nothing in an ordinary run.
#[test]
fn child() {
    if let (Ok(store), Ok(tree)) = (env::var(IMPORT), env::var(TREE)) {
        import(Path::new(&store), Path::new(&tree));
    }
}

fn spawn(store: &Path, tree: &Path) -> std::process::Child {
    Command::new(env::current_exe().unwrap())
        .args(["child", "--exact", "--test-threads=1"])
        .env(IMPORT, store)
        .env(TREE, tree)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A tree that takes a while: runs with short and long metric files, params, tags and an artifact.
fn generate(tree: &Path, random: &mut Random) {
    fs::create_dir_all(tree.join("1")).unwrap();
    fs::write(
        tree.join("1/meta.yaml"),
        "artifact_location: file:///nowhere/1\ncreation_time: 1700000000000\nexperiment_id: '1'\nlast_update_time: 1700000000000\nlifecycle_stage: active\nname: generated\n",
    )
    .unwrap();
    for run in 0..12 {
        let id = format!("{:016x}{:016x}", random.next(), random.next());
        let directory = tree.join("1").join(&id);
        for name in ["metrics", "params", "tags", "artifacts"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        fs::write(directory.join("meta.yaml"), format!("artifact_uri: file:///nowhere/1/{id}/artifacts\nend_time: 1700000900000\nentry_point_name: ''\nexperiment_id: '1'\nlifecycle_stage: active\nrun_id: {id}\nrun_name: generated-{run}\nsource_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 1700000000000\nstatus: 3\ntags: []\nuser_id: nobody\n")).unwrap();
        fs::write(directory.join("tags/mlflow.runName"), format!("generated-{run}")).unwrap();
        fs::write(directory.join("artifacts/notes.txt"), "weights are elsewhere\n".repeat(100)).unwrap();
        for param in 0..5 {
            fs::write(directory.join(format!("params/p{param}")), random.next().to_string()).unwrap();
        }
        for (key, lines) in [("loss", 10_000), ("accuracy", 10_000), ("lr", 7), ("nested/key", 3_000)] {
            let mut text = String::new();
            let mut timestamp = 1_700_000_000_000 + run * 1_000;
            for step in 0..lines {
                timestamp += random.next() % 50;
                let value = match random.next() % 1000 {
                    0 => "nan".to_owned(),
                    1 => "7".to_owned(),
                    n => format!("{:?}", n as f64 / 997.0 + 1.0),
                };
                text.push_str(&format!("{timestamp} {value} {step}\n"));
            }
            let path = directory.join("metrics").join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

/// Everything that can be asked, as text.
fn answers(path: &Path) -> String {
    let store = Store::options().read_only(true).open(path).unwrap();
    let search = RunSearch { view: ViewType::All, max_results: 1000, ..RunSearch::default() };
    let mut all = String::new();
    let mut runs = store.search_runs(&search).unwrap().items;
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    for run in runs {
        let data = serde_json::to_string(&*store.get_run(&run.id).unwrap()).unwrap();
        all.push_str(&format!("{data}\n"));
        for metric in store.metrics(&run.id).unwrap() {
            let points: Points = store.history(&run.id, &metric.key).unwrap().collect().unwrap();
            let bits: Vec<u64> = points.values.iter().map(|v| v.to_bits()).collect();
            let digest =
                blake3::hash(format!("{:?}{:?}{bits:?}", points.steps, points.timestamps_ms).as_bytes());
            all.push_str(&format!("  {metric:?} {} points {digest}\n", points.len()));
        }
    }
    all
}

fn export(store: &Path, to: &Path) {
    let store = Store::options().read_only(true).open(store).unwrap();
    store.export(to, &ExportOptions::default(), &mut |_| {}).unwrap();
}

fn assert_same(a: &Path, b: &Path) {
    let diff = Command::new("diff").arg("-r").arg(a).arg(b).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn twenty_kills_at_random_moments_leave_an_equal_store() {
    if env::var(IMPORT).is_ok() {
        return;
    }
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = env::var("MLRS_SEED").map_or(u64::from(clock) | 1, |text| text.parse().unwrap());
    println!("MLRS_SEED={seed}");
    let mut random = Random(seed);
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("mlruns");
    generate(&tree, &mut random);

    let undisturbed = work.path().join("undisturbed");
    let started = Instant::now();
    assert!(spawn(&undisturbed, &tree).wait().unwrap().success());
    let whole = started.elapsed();

    let expected = answers(&undisturbed);

    let mut killed = 0;
    for number in 0..STORES {
        let store = work.path().join(format!("killed-{number}"));
        for _ in 0..KILLS {
            let mut child = spawn(&store, &tree);
            // What an earlier one imported takes no time, so most moments of the whole would be too late.
            thread::sleep(Duration::from_nanos(random.next() % (whole.as_nanos() as u64 / 2 + 1)));
            child.kill().unwrap();
            killed += u32::from(!child.wait().unwrap().success());
            // What is there already can be read, whatever the moment.
            if store.join("MLRS").exists() {
                answers(&store);
            }
        }
        import(&store, &tree);
        assert_eq!(answers(&store), expected, "seed {seed}");
        let exported = work.path().join(format!("export-{number}"));
        export(&store, &exported);
        assert_same(&tree, &exported);
    }
    println!("an import takes {whole:?}; {killed} of {} were killed before their end", STORES * KILLS);
    // Kills that all came too late would test nothing.
    assert!(killed >= STORES, "only {killed} imports were interrupted");
    let exported = work.path().join("export-undisturbed");
    export(&undisturbed, &exported);
    assert_same(&tree, &exported);
}
