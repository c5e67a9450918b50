#!/usr/bin/env bash
# Copy the tables of finished searches to where they are committed: scripts/copy_search.sh STUDY ...
set -euo pipefail
cd "$(dirname "$0")/.."
for study in "$@"; do
    table="search_${study##*_}"
    for suffix in csv md; do
        cp "${RESULTS:-results}/$study/tables/$table.$suffix" "docs/search/$study.$suffix"
    done
done
