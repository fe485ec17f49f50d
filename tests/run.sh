#!/usr/bin/env bash
# Every check of the project, in one command on a fresh clone: needs a Rust toolchain with rustfmt and clippy, a C
# compiler, and Python 3.11 or newer with venv and pip (real MLflow is a peer of the tests). Stops at the first failure.
#
#   tests/run.sh              everything; two cores need well under 45 minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MAX_CRATES=35 # of the thin build, itself included

finished=()
current=
started=$SECONDS
trap 'status=$?; report $status; exit $status' EXIT

report() {
  printf '\n'
  for line in ${finished[@]+"${finished[@]}"}; do printf '%s\n' "$line"; done
  if [ "$1" -ne 0 ]; then
    printf 'FAILED in: %s (exit code %s)\n' "${current:-the beginning}" "$1"
  else
    printf 'all checks passed in %d s\n' "$SECONDS"
  fi
}

step() {
  done_with_step
  current=$1
  started=$SECONDS
  printf '\n=== %s\n' "$current"
}

done_with_step() {
  if [ -n "$current" ]; then finished+=("$(printf '%5d s  %s' $((SECONDS - started)) "$current")"); fi
  current=
}

# The crates that a program gets by linking the engine alone. `cargo tree` repeats a crate wherever it is used.
count_crates() {
  local listing count
  listing=$(cargo tree --locked -e normal --prefix none "$@" | sed 's/ (\*)$//' | sort -u)
  count=$(printf '%s\n' "$listing" | wc -l)
  echo "crates: $count of at most $MAX_CRATES"
  if [ "$count" -gt "$MAX_CRATES" ]; then
    printf '%s\n' "$listing" >&2
    return 1
  fi
}

step "MLflow, three versions (tests/mlflow/setup.sh)"
tests/mlflow/setup.sh

step "formatting"
cargo fmt --all --check

step "clippy"
cargo clippy --locked --workspace --all-targets --all-features -- -D warnings

step "tests"
cargo test --locked --workspace --all-features --lib --bins --tests --examples

for medium in plain network; do
  step "tests without mapped files: $medium"
  MLRS_TEST_MEDIUM=$medium cargo test --locked --workspace --all-features --test store --test model
  MLRS_TEST_MEDIUM=$medium cargo test --locked --workspace --all-features --test processes killed
done

step "doc tests"
cargo test --locked --workspace --all-features --doc

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps

step "thin build"
cargo build --locked --no-default-features --lib
count_crates --no-default-features

step "package"
# What would be published, built by itself. Refuses a tree with changes that are not committed.
cargo package --locked

step "benches compile"
cargo bench --locked --workspace --all-features --no-run

if [ -f fuzz/Cargo.toml ]; then
  step "fuzz targets compile"
  # On stable: running them is what needs nightly and cargo-fuzz. In the debug profile, as nothing is run.
  CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz" cargo check --manifest-path fuzz/Cargo.toml --bins
fi

if [ -f bench-compare/Cargo.toml ]; then
  step "bench-compare compiles"
  # Its peers' C sources take most of it; running it is for people with a quiet machine (docs/performance.md).
  cargo fmt --manifest-path bench-compare/Cargo.toml --check
  CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/bench-compare" \
    cargo check --locked --manifest-path bench-compare/Cargo.toml
fi

if [ -f examples/embed/Cargo.toml ]; then
  step "examples/embed, the engine in somebody else's program"
  CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/embed" cargo build --manifest-path examples/embed/Cargo.toml
fi

done_with_step
