//! The examples at the end of every verb's help.
//!
//! Contract: every line that starts with `mlrs-db` parses; a test in `args` runs them through the parser.

pub(super) const TOP: &str = "\
EXAMPLES:
  mlrs-db import ./mlruns --store my-store        # take in what MLflow wrote
  mlrs-db runs ls --store my-store                # see what is in it
  mlrs-db export ./mlruns-again --store my-store  # write it as MLflow does

  export MLRS_DB_STORE=my-store                   # from here on without --store
  mlrs-db runs search \"metrics.loss < 0.1\"
  mlrs-db metrics plot 3f2a loss                  # 3f2a: the start of a run's id

Every verb has examples: `mlrs-db runs ls --help`. A start of a run's id
stands for the run, and so does its name.

EXIT CODES:
  0 ok   1 failure   2 usage   3 not found   4 corruption   5 busy";

pub(super) const INIT: &str = "\
EXAMPLES:
  mlrs-db init my-store
  mlrs-db init --store my-store";

pub(super) const IMPORT: &str = "\
EXAMPLES:
  mlrs-db import ./mlruns --store my-store     # the store is made if there is none
  mlrs-db import ./mlruns --dry-run            # only tell what is wrong with the tree
  mlrs-db import /data/team-b/mlruns --tree team-b --artifacts reference

Importing a tree again adds what is new in it.";

pub(super) const EXPORT: &str = "\
EXAMPLES:
  mlrs-db export ./mlruns-again
  mlrs-db export ./out --tree team-b
  mlrs-db export ./out --rewrite-uris file:///old/place=file:///new/place

What was imported and not changed since comes out with the same bytes. Without
--tree, everything in the store is written as one tree; what has no place in
it is listed.";

pub(super) const EXPERIMENTS: &str = "\
EXAMPLES:
  mlrs-db experiments ls
  mlrs-db experiments show mnist";

pub(super) const EXPERIMENTS_LS: &str = "\
EXAMPLES:
  mlrs-db experiments ls
  mlrs-db experiments ls --filter \"name LIKE 'mnist%'\" --order-by \"name ASC\"
  mlrs-db experiments ls --view all --json | jq -r .name";

pub(super) const EXPERIMENTS_SHOW: &str = "\
EXAMPLES:
  mlrs-db experiments show mnist
  mlrs-db experiments show 0 --json";

pub(super) const RUNS: &str = "\
EXAMPLES:
  mlrs-db runs ls --experiment mnist
  mlrs-db runs search \"params.lr = '0.1'\"
  mlrs-db runs show 3f2a";

pub(super) const RUNS_LS: &str = "\
EXAMPLES:
  mlrs-db runs ls --experiment mnist --metric loss --param lr
  mlrs-db runs ls --order-by \"metrics.loss ASC\" --limit 10
  mlrs-db runs ls --view deleted --json";

pub(super) const RUNS_SEARCH_ABOUT: &str = "\
List the runs that match a filter

The filter is MLflow's: comparisons joined by AND, over metrics.KEY (latest value), params.KEY, tags.KEY and the \
attributes run_id, run_name, status, user_id, artifact_uri, start_time, end_time; with =, !=, <, <=, >, >=, LIKE, \
ILIKE, IN. Here OR, NOT and parentheses work as well. Text stands in single quotes; keys with spaces or dashes in \
double quotes or backticks.";

pub(super) const RUNS_SEARCH: &str = "\
EXAMPLES:
  mlrs-db runs search \"metrics.loss < 0.1 AND params.lr = '0.1'\" --order-by \"metrics.loss ASC\"
  mlrs-db runs search \"status = 'FAILED' OR tags.quality = 'bad'\" --view all
  mlrs-db runs search \"attributes.run_name LIKE 'lr-%'\" --metric loss --json";

pub(super) const RUNS_SHOW: &str = "\
EXAMPLES:
  mlrs-db runs show 3f2a9c
  mlrs-db runs show lr-3 --json | jq .params";

pub(super) const RUNS_REAP: &str = "\
EXAMPLES:
  mlrs-db runs reap --after 10m --dry-run
  mlrs-db runs reap --after 10m
  mlrs-db runs reap --after 1d --json | jq -r .id";

pub(super) const RUNS_REAP_ABOUT: &str = "\
Mark runs as failed whose process is gone

A process that was killed cannot say that its run is over, so the run stays
RUNNING; `runs ls` says since when its writer is gone. This marks such runs
FAILED, with their last sign of life as their end. Nothing else ever does.

Runs that were logged on another machine or imported are left alone, because
their processes cannot be seen from here: call it where the runs are logged,
not on a copy of the store.";

pub(super) const TAIL: &str = "\
EXAMPLES:
  mlrs-db tail 3f2a
  mlrs-db tail 3f2a loss acc --last 100
  mlrs-db tail lr-3 --from-start --no-follow
  mlrs-db tail 3f2a --json | jq -r 'select(.value > 1)'

Each metric of each process comes in its order; several come in the order of
time. It ends when the run has ended and its process is gone or has logged
nothing to it for 5 seconds, or at ^C.";

pub(super) const TOP_VERB: &str = "\
EXAMPLES:
  mlrs-db top
  mlrs-db top --once
  mlrs-db top --json | jq 'select(.liveness == \"alive\") | .points_per_s'

`waiting` counts points that are in no batch yet: safe from a killed process,
and what recovery would bring home.";

pub(super) const METRICS: &str = "\
EXAMPLES:
  mlrs-db metrics ls 3f2a
  mlrs-db metrics get 3f2a loss --steps 100..200
  mlrs-db metrics plot 3f2a loss";

pub(super) const METRICS_LS: &str = "\
EXAMPLES:
  mlrs-db metrics ls 3f2a
  mlrs-db metrics ls 3f2a --json | jq -r .key";

pub(super) const METRICS_GET: &str = "\
EXAMPLES:
  mlrs-db metrics get 3f2a loss
  mlrs-db metrics get 3f2a loss --steps 1000.. --since 2h --json
  mlrs-db metrics get 3f2a loss --csv > loss.csv";

pub(super) const METRICS_PLOT_ABOUT: &str = "\
Draw metrics in the terminal

Every column of the chart shows the smallest and the greatest value that fall into it, so no spike is lost however \
many points there are. Columns with NaN or infinite values are marked `!` in rows of their own above the axis.";

pub(super) const METRICS_PLOT: &str = "\
EXAMPLES:
  mlrs-db metrics plot 3f2a train/loss val/loss
  mlrs-db metrics plot 3f2a loss --run 77b0 --run c1d2 --log-y
  mlrs-db metrics plot 3f2a loss --x time --width 100 --height 20 --ascii";

pub(super) const LOG_ABOUT: &str = "\
Log points from standard input: CSV, TSV or JSON lines

Every line is one step: its numbers are the metrics. JSON lines are objects such as {\"step\": 3, \"loss\": 0.1}; CSV \
and TSV start with a header line such as step,timestamp,loss. Empty fields and nulls are left out; NaN, Infinity and \
-Infinity (or nan, inf, -inf) are values. Without a step a line counts one up from the line before, starting at 0, or \
after the last step of a run that is continued; without a time it is now.

The id of the run is printed first. Each line is logged as it arrives and survives a kill. A line that makes no sense \
is reported with its number and left out as a whole; the others are logged, and the exit code is 1.";

pub(super) const LOG: &str = "\
EXAMPLES:
  mlrs-db log --experiment mnist --run lr-3 --param lr=0.1 --tag team=vision < metrics.csv
  mlrs-db log --run-id 3f2a9c --status running < more.jsonl
  mlrs-db log --step epoch < history.csv
  ./train | mlrs-db log --experiment mnist";

pub(super) const STATS: &str = "\
EXAMPLES:
  mlrs-db stats
  mlrs-db stats --json | jq .bytes_per_point";

pub(super) const VERIFY: &str = "\
EXAMPLES:
  mlrs-db verify
  mlrs-db verify --quiet --json | jq .findings

Findings are damage (exit code 4), or no damage: torn tails (a write that was
interrupted; what is before it is whole), conflicts (two experiments claim a
name or an id, after a merge) and notes.";

pub(super) const COMPACT: &str = "\
EXAMPLES:
  mlrs-db compact
  mlrs-db compact --json | jq .bytes_after

Others may read and log meanwhile. The files that were replaced stay for ten
minutes, for who still reads them; the next compact, gc or writer that closes
removes them.";

pub(super) const GC: &str = "\
EXAMPLES:
  mlrs-db gc --dry-run
  mlrs-db gc --older-than 30d

Without --older-than, everything that is deleted goes (`mlrs-db runs ls --view
deleted` lists the runs). Runs and experiments are deleted with the library,
or were in the .trash of an imported tree.";

pub(super) const RECOVER: &str = "\
EXAMPLES:
  mlrs-db recover --host node7 --dry-run
  mlrs-db recover --host node7

What killed writers of this host left is brought home without this, by
whoever writes next. Of other hosts (files that were copied here, a network
file system) nobody can see whether a writer lives, so their points are read
where they are until you say that the host's writers are gone. If one was not,
nothing is lost: copy its files again.";

pub(super) const REPAIR: &str = "\
EXAMPLES:
  mlrs-db repair --dry-run
  mlrs-db repair
  mlrs-db repair --json | jq .lost

Acts on what `mlrs-db verify` calls damage. Damaged files are kept in
quarantine/ inside the store. Exit code 4 if something was lost or remains
(or, with --dry-run, if there is something to do). If there is another copy
of the store, `mlrs-db merge` it afterwards: points are known by identity, so
what was lost here comes back and nothing is doubled.";

pub(super) const BACKUP: &str = "\
EXAMPLES:
  mlrs-db backup /backup/my-store
  mlrs-db backup /backup/my-store      # again: only what is new is copied

Holds everything that was logged before it began. It takes no lock, writes
nothing to the store, and opens like any store.";

pub(super) const MERGE: &str = "\
EXAMPLES:
  mlrs-db merge /scratch/node7/my-store
  mlrs-db merge node1 node2 node3 --dry-run

Does what copying log/, live/ and artifacts/ does, with checks before. Merging
a store again adds what is new in it; runs that were purged here stay away.";

pub(super) const SERVER_ABOUT: &str = "\
Serve the store to MLflow's clients and pages

Speaks MLflow's REST protocol, takes and hands out artifacts, and shows MLflow's own pages where MLflow is installed. \
The store is made if there is none. Other processes may log to it meanwhile.

It listens on this machine alone unless told otherwise, and then wants a token from everybody: clients send what \
MLFLOW_TRACKING_TOKEN says, browsers ask for a password. It speaks HTTP; for HTTPS put a proxy before it.";

pub(super) const SERVER: &str = "\
EXAMPLES:
  mlrs-db server --store my-store
  mlrs-db server --store my-store --port 8000 --ui off
  mlrs-db server --store my-store --host 0.0.0.0 --auth-token-file token.txt
  mlrs-db server --store my-store --allowed-hosts mlflow.example.org   # behind a proxy

In Python, or as MLFLOW_TRACKING_URI:
  mlflow.set_tracking_uri(\"http://127.0.0.1:5000\")

/health, /version and /metrics (Prometheus) are for machines.";

pub(super) const COMPLETIONS: &str = "\
EXAMPLES:
  mlrs-db completions bash > ~/.local/share/bash-completion/completions/mlrs-db
  mlrs-db completions zsh > ~/.zfunc/_mlrs-db
  mlrs-db completions fish > ~/.config/fish/completions/mlrs-db.fish";

pub(super) const MAN: &str = "\
EXAMPLES:
  mlrs-db man | man -l -
  mlrs-db man --out ~/.local/share/man/man1";
