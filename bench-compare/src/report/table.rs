//! The tables, as Markdown.

use std::fmt::Write;

use crate::options::Options;
use crate::peer::{PEERS, PeerInfo};
use crate::report::goals::GOALS;
use crate::report::{Results, Spread};
use crate::workload::{WORKLOADS, Workload, WorkloadInfo};

/// Whom ratios are made by.
const OURS: &str = "mlrs";

pub fn write(results: &Results, options: &Options) -> String {
    let mut text = String::new();
    if options.is_quick {
        text += "**A quick run: its figures say nothing.**\n\n";
    }
    text += &machine();
    for info in WORKLOADS.iter().filter(|info| options.workloads.contains(&info.workload)) {
        if !results.has(info.workload) {
            continue;
        }
        text += &match info.workload {
            Workload::R4Growth => growth(results, info),
            _ => workload(results, info, options),
        };
    }
    text += &goals(results);
    text += &durability(options);
    for (workload, peer, why) in &results.failures {
        let _ = writeln!(text, "\n**Failed**: {} of {peer}: {why}", workload.info().name);
    }
    text
}

/// Three significant digits.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size == 0.0 || size >= 100.0 => 0,
        _ => (2 - size.log10().floor() as i32).clamp(0, 6) as usize,
    };
    format!("{value:.decimals$}")
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or("-".into(), |s| format!("{}..{}", digits(s.least), digits(s.greatest)))
}

fn median(spread: Option<Spread>) -> String {
    spread.map_or("-".into(), |s| digits(s.median))
}

fn workload(results: &Results, info: &WorkloadInfo, options: &Options) -> String {
    let peers = PEERS.iter().filter(|peer| options.peers.contains(&peer.name));
    let mut rows: Vec<(&PeerInfo, Spread)> = peers
        .filter_map(|peer| Some((peer, results.spread((info.workload, peer.name, info.metric))?)))
        .collect();
    rows.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
    let mut text = format!(
        "### {}: {}\n\n| peer | {} | least..greatest | x mlrs-db |",
        info.name, info.title, info.unit
    );
    info.columns.iter().for_each(|(_, head)| text += &format!(" {head} |"));
    text += &format!("\n|---|{}\n", "---:|".repeat(3 + info.columns.len()));
    for (peer, own) in rows {
        let name = |metric| (info.workload, peer.name, metric);
        let ratio = results.ratio(name(info.metric), (info.workload, OURS, info.metric));
        let ratio = ratio.map_or("-".into(), |r| {
            format!("{} ({}..{})", digits(r.median), digits(r.least), digits(r.greatest))
        });
        let _ = write!(text, "| {} | {} | {} | {ratio} |", peer.label, digits(own.median), spread(Some(own)));
        for (metric, _) in info.columns {
            let _ = write!(text, " {} |", median(results.spread(name(metric))));
        }
        text += "\n";
    }
    text + "\n"
}

fn growth(results: &Results, info: &WorkloadInfo) -> String {
    const ROWS: [(&str, &str); 6] = [
        ("cold_ms", "cold, ms"),
        ("no_index_cold_ms", "cold without the index, ms"),
        ("killed_cold_ms", "cold after kill -9 of a writer, ms"),
        ("warm_ms", "cached, ms"),
        ("bytes_per_point", "B/pt"),
        ("fill_seconds", "filled in, s"),
    ];
    let spread =
        |metric: &str, exponent| results.spread((info.workload, OURS, &format!("{metric}_1e{exponent}")));
    let exponents: Vec<u32> = (5..=12).filter(|exponent| spread("cold_ms", *exponent).is_some()).collect();
    let mut text = format!("### {}: {}\n\n| points |", info.name, info.title);
    exponents.iter().for_each(|exponent| text += &format!(" 10^{exponent} |"));
    text += &format!("\n|---|{}\n", "---:|".repeat(exponents.len()));
    for (metric, head) in ROWS {
        text += &format!("| {head} |");
        exponents.iter().for_each(|exponent| text += &format!(" {} |", median(spread(metric, *exponent))));
        text += "\n";
    }
    text + "\n"
}

fn goals(results: &Results) -> String {
    let mut text = String::from(
        "### Goals\n\n| what | measured | least..greatest | goal | |\n|---|---:|---:|---:|---|\n",
    );
    for goal in GOALS {
        let Some(measured) = goal.measured(results) else { continue };
        let verdict = match goal.is_met(&measured) {
            true => "met".into(),
            false => format!("**missed**, {} times the goal", digits(goal.distance(&measured))),
        };
        let figure = digits(measured.median);
        let _ = writeln!(
            text,
            "| {} | {figure} | {} | {} | {verdict} |",
            goal.what,
            spread(Some(measured)),
            goal.text()
        );
    }
    text + "\n"
}

fn durability(options: &Options) -> String {
    let mut text = String::from("### What is lost\n\n| peer | kill -9 | power cut |\n|---|---|---|\n");
    for peer in PEERS.iter().filter(|peer| options.peers.contains(&peer.name)) {
        let _ = writeln!(text, "| {} | {} | {} |", peer.label, peer.kill, peer.power);
    }
    text
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("?");
    format!(
        "{cores} cores,{}; load at the end {load}.\n\n",
        model.trim_start_matches([' ', '\t', ':']).replace(':', "")
    )
}
