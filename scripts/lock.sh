#!/usr/bin/env bash
# Write requirements.lock from the packages installed in .venv, with the hashes of all files that PyPI has of each.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
tools=$(mktemp -d)
trap 'rm -r "$tools"' EXIT
"$python" -m pip check > /dev/null
"$python" -m pip freeze --all --exclude-editable --exclude pip |
    grep -v '^rae_bench' |
    sed -E 's/^(nvidia-.*|triton==.*|cuda-.*)$/\1 ; sys_platform == "linux"/' > "$tools/versions.txt"
"$python" -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet uv
{
    echo "# Exact versions of everything, written by scripts/lock.sh. Packages for Linux GPUs carry a marker."
    "$tools/venv/bin/uv" --quiet pip compile "$tools/versions.txt" --python "$python" --universal --no-deps \
        --no-header --no-annotate --generate-hashes
} > "$tools/requirements.lock"
cp "$tools/requirements.lock" requirements.lock
