//! mlrs-db beside what one would use instead: the same data, the same questions, in one run. See README.md.
//!
//! Contract: every answer is checked before its time counts; each workload of each peer is a process of its own; peers
//! take turns, so that figures of one repetition were measured under the same load.

mod data;
mod measure;
mod options;
mod peer;
mod process;
mod report;
mod schedule;
mod workload;

use std::process::ExitCode;

use options::Options;
use peer::PeerInfo;
use workload::{Context, Sizes, Workload};

/// Any error: text for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome<T = ()> = Result<T, Failure>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => {
            println!("{}", options::USAGE);
            Ok(())
        }
        Some("--list") => {
            options::print_list();
            Ok(())
        }
        Some("child") => child(&arguments[1..]),
        Some("child-to-kill") => match arguments.get(1) {
            Some(directory) => workload::growth::log_and_wait(directory.as_ref()),
            None => Err("a directory".into()),
        },
        _ => Options::parse(&arguments).and_then(|options| schedule::run(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `child WORKLOAD PEER DIRECTORY [--quick] [--day-seconds N]`: what [`schedule`] starts.
fn child(arguments: &[String]) -> Outcome {
    let [workload, peer, directory, rest @ ..] = arguments else {
        return Err("a workload, a peer, a directory".into());
    };
    let mut sizes = Sizes::new(rest.iter().any(|argument| argument == "--quick"));
    if let Some(at) = rest.iter().position(|argument| argument == "--day-seconds") {
        sizes.day_seconds = rest.get(at + 1).ok_or("--day-seconds needs a value")?.parse()?;
    }
    let context = Context {
        workload: Workload::named(workload).ok_or("no such workload")?,
        peer: PeerInfo::named(peer).ok_or("no such peer")?,
        directory: directory.into(),
        sizes,
    };
    context.peer.run(&context)
}
