#!/usr/bin/env bash
# The main job on real data: imports a tree that MLflow 3.18 wrote, shows what is in it, exports it, and compares the
# export with the original byte for byte. Needs a Rust toolchain and a C compiler, writes to a temporary directory only.
#
#   bash examples/round-trip.sh [ARCHIVE]      ARCHIVE: a .tar.gz with a directory `mlruns`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

archive=${1:-tests/data/mlflow-3.18.0.tar.gz}
[ -f "$archive" ] || { echo "there is no $archive" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Says what it does, then does it.
run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

echo "building mlrs-db (the first time takes some minutes)"
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
cargo build --release --locked --bin mlrs-db
# Found under its name from here on, as if it were installed.
export PATH="$target/release:$PATH" MLRS_DB_STORE=my-store

echo
echo "unpacking $archive"
tar -xzf "$archive" -C "$work"
cd "$work"

run mlrs-db import mlruns
run mlrs-db stats
run mlrs-db experiments ls --limit 5
run mlrs-db runs ls --limit 5

# The metric with the most points is the one worth looking at.
longest=$(mlrs-db runs ls --json | sed -n 's/.*"id":"\([0-9a-f]\{32\}\)".*/\1/p' | while read -r id; do
  mlrs-db metrics ls "$id" --json | sed -n "s/.*\"key\":\"\([^\"]*\)\".*\"points\":\([0-9]*\).*/\2 $id \1/p"
done | sort -rn | head -n 1)
read -r _ id key <<<"$longest"
run mlrs-db metrics get "$id" "$key" --limit 3
run mlrs-db metrics plot "$id" "$key" --height 8

run mlrs-db export mlruns-again
run diff -r mlruns mlruns-again
echo
echo "round trip: diff -r found no difference in $(find mlruns -type f | wc -l) files"
