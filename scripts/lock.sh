#!/usr/bin/env bash
# Write requirements.lock and environment.yml from the packages installed in .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
{
    echo "# Exact versions of everything, written by scripts/lock.sh. Packages for Linux GPUs carry a marker."
    "${PYTHON:-.venv/bin/python}" -m pip check > /dev/null
    "${PYTHON:-.venv/bin/python}" -m pip freeze --exclude-editable |
        grep -v '^rae_bench' |
        sed -E 's/^(nvidia-.*|triton==.*|cuda-.*)$/\1 ; sys_platform == "linux"/'
} > requirements.lock
cat > environment.yml <<'YML'
# For conda users: the same versions as everybody else's, from the same lock.
name: rae_bench
channels: [conda-forge]
dependencies:
  - python>=3.11
  - pip
  - pip:
      - -r requirements.lock
      - --no-build-isolation -e .
YML
