//! The command line.

use std::path::PathBuf;

use crate::Outcome;
use crate::peer::{PEERS, PeerInfo};
use crate::workload::{WORKLOADS, Workload};

pub const USAGE: &str = "usage: bench-compare [options]
  --only W1,R1      these workloads alone (what they read is made, too): see --list
  --peers raw,...   these peers alone
  --python          DuckDB and MLflow, too; needs python/setup.sh
  --reps N          interleaved repetitions, each of all peers (5), after one that warms up and watches memory
  --day-seconds N   how long the day of many-keys is (86400)
  --quick           a minute's smoke run: small sizes, one repetition; its figures say nothing
  --dir DIR         where stores are made (a temporary directory); several GB, on the disk that is to be measured
  --out DIR         where results.jsonl and table.md go (bench-compare/results)
  --table FILE,...  no run: the tables of what earlier runs, of different workloads, left in results.jsonl
  --list            workloads and peers";

#[derive(Debug)]
pub struct Options {
    pub workloads: Vec<Workload>,
    pub peers: Vec<&'static str>,
    pub reps: usize,
    pub is_quick: bool,
    pub day_seconds: Option<usize>,
    pub directory: PathBuf,
    pub out: PathBuf,
    /// Results of earlier runs, to be printed instead of a run.
    pub earlier: Vec<PathBuf>,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut options = Self {
            workloads: WORKLOADS.iter().map(|info| info.workload).collect(),
            peers: PEERS.iter().filter(|peer| peer.script().is_none()).map(|peer| peer.name).collect(),
            reps: 5,
            is_quick: false,
            day_seconds: None,
            directory: std::env::temp_dir(),
            out: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results"),
            earlier: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--only" => options.workloads = list(value()?, Workload::named)?,
                "--peers" => options.peers = list(value()?, |name| Some(PeerInfo::named(name)?.name))?,
                "--python" => options.peers = PEERS.iter().map(|peer| peer.name).collect(),
                "--reps" => options.reps = value()?.parse()?,
                "--quick" => (options.is_quick, options.reps) = (true, 1),
                "--day-seconds" => options.day_seconds = Some(value()?.parse()?),
                "--dir" => options.directory = value()?.into(),
                "--out" => options.out = value()?.into(),
                "--table" => options.earlier = list(value()?, |path| Some(path.into()))?,
                other => return Err(format!("there is no option {other}\n{USAGE}").into()),
            }
        }
        Ok(options)
    }
}

fn list<T>(text: &str, named: impl Fn(&str) -> Option<T>) -> Outcome<Vec<T>> {
    text.split(',')
        .map(|name| named(name).ok_or_else(|| format!("there is no {name}; see --list").into()))
        .collect()
}

pub fn print_list() {
    println!("workloads:");
    WORKLOADS.iter().for_each(|info| println!("  {:<14} {}", info.name, info.title));
    println!("peers:");
    PEERS.iter().for_each(|peer| println!("  {:<20} {}", peer.name, peer.label));
}
