#!/usr/bin/env bash
# Makes what `bench-compare --python` needs: bench-compare/target/python/duckdb (an environment of its own) and
# bench-compare/target/python/mlflow (a link to MLflow 3.18's environment, which tests/mlflow/setup.sh makes or finds).
# Repeatable. Needs Python 3.11 or newer with venv and pip ($PYTHON, else python3), and a package index.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
to=$root/bench-compare/target/python
mkdir -p "$to"

"$root/tests/mlflow/setup.sh" 3.18.0
venvs=${MLRS_MLFLOW_VENVS:-$(cd "$root" && cargo metadata --format-version 1 --no-deps |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/mlflow}
ln -sfn "$(cd "$venvs/venv-3.18.0" && pwd)" "$to/mlflow"

if ! cmp -s "$here/requirements.txt" "$to/duckdb/.stamp"; then
  rm -rf "$to/duckdb"
  "${PYTHON:-python3}" -m venv "$to/duckdb"
  "$to/duckdb/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps \
    --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$to/duckdb/.stamp"
fi
echo "ready in $to"
