#!/usr/bin/env bash
# Makes the virtual environments in which the tests run real MLflow: one per requirements-VERSION.txt beside this
# script, in <cargo target>/mlflow/venv-VERSION (or $MLRS_MLFLOW_VENVS/venv-VERSION). Repeatable: an environment whose
# stamp names its lock file's checksum is left alone; any other is made anew.
#
#   tests/mlflow/setup.sh [VERSION...]        all versions if none is named
#
# Needs Python 3.11 or newer with venv and pip ($PYTHON, else python3, else python3.11 ...; tried with 3.11 and 3.13,
# where 3.13 compiles SQLAlchemy 1.4), and access to a package index through pip's own configuration.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

die() {
  printf 'tests/mlflow/setup.sh: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# A Python that can make environments, if possible one of those tried. ensurepip is what Debian leaves out of its python3 package.
find_python() {
  local newest candidate
  for newest in 13 99; do
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
      if "$candidate" - "$newest" 2>/dev/null <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, int(sys.argv[1])):
    sys.exit(1)
try:
    import ensurepip, venv
except ImportError:
    import virtualenv
PY
      then
        printf '%s\n' "$candidate"
        return
      fi
    done
  done
  return 1
}

python=$(find_python) || die "no usable Python found (tried: ${PYTHON:-python3, python3.11 to python3.13})" \
  "Needed: Python 3.11 or newer with the modules venv and ensurepip (or virtualenv)." \
  "Debian, Ubuntu: apt-get install python3-venv    Fedora: dnf install python3" \
  "or name one: PYTHON=/path/to/python3.11 tests/mlflow/setup.sh"

if [ -n "${MLRS_MLFLOW_VENVS:-}" ]; then
  venvs=$MLRS_MLFLOW_VENVS
else
  # Cargo knows where its target directory is (environment, .cargo/config.toml); without cargo, the usual place.
  target=$(cd "$root" && cargo metadata --format-version 1 --no-deps 2>/dev/null |
    "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])' 2>/dev/null) ||
    target=${CARGO_TARGET_DIR:-$root/target}
  venvs=$target/mlflow
fi
mkdir -p "$venvs" || die "cannot create $venvs" "Set MLRS_MLFLOW_VENVS to a directory that can be written."
venvs=$(cd "$venvs" && pwd)

# Two set-ups at a time would spoil each other's environments.
if command -v flock >/dev/null; then
  exec 9>"$venvs/.lock"
  flock -n 9 || { echo "waiting for another tests/mlflow/setup.sh"; flock 9; }
fi

versions=("$@")
if [ ${#versions[@]} -eq 0 ]; then
  for lock in "$here"/requirements-*.txt; do
    version=${lock##*/requirements-}
    versions+=("${version%.txt}")
  done
fi

make_venv() {
  local version=$1 lock=$2 venv=$3 log=$4
  rm -rf "$venv"
  "$python" -m venv "$venv" >"$log" 2>&1 || {
    rm -rf "$venv"
    "$python" -m virtualenv "$venv" >>"$log" 2>&1
  } || return
  # The lock files are complete, so pip has nothing to resolve (and could not: see requirements-3.18.0.txt).
  "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --retries 5 --no-deps \
    --requirement "$lock" >>"$log" 2>&1 || return
  env -i PATH="$PATH" HOME="$HOME" MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_FILE_STORE=true \
    "$venv/bin/python" - "$version" >>"$log" 2>&1 <<'PY'
import sys
import mlflow, yaml
from mlflow.tracking import MlflowClient
import mlflow.store.tracking.file_store, mlflow.store.tracking.sqlalchemy_store
assert mlflow.__version__ == sys.argv[1], f"MLflow {mlflow.__version__} instead of {sys.argv[1]}"
assert yaml.__with_libyaml__, "PyYAML was built without libyaml, so MLflow would write other bytes"
PY
}

for version in "${versions[@]}"; do
  lock=$here/requirements-$version.txt
  [ -f "$lock" ] || die "there is no lock file for MLflow $version" "Known: $(cd "$here" && echo requirements-*.txt)"
  venv=$venvs/venv-$version
  stamp="$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
    "$lock") $("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
  if [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    echo "MLflow $version: ready in $venv"
    continue
  fi
  echo "MLflow $version: installing into $venv ($("$python" --version))"
  started=$SECONDS
  log=$venvs/setup-$version.log
  if ! make_venv "$version" "$lock" "$venv" "$log"; then
    tail -n 15 "$log" >&2
    die "MLflow $version could not be installed" \
      "The whole output is in $log." \
      "Usual causes: no access to a package index (pip's own configuration decides which), or a Python for which" \
      "a package in $lock has no wheel (try PYTHON=python3.11)." \
      "Run tests/mlflow/setup.sh again once that is mended; it goes on where it stopped."
  fi
  printf '%s\n' "$stamp" >"$venv/.stamp"
  echo "MLflow $version: ready after $((SECONDS - started)) s"
done
