#!/usr/bin/env bash
# Are two runs of a study the same bytes? scripts/compare_results.sh CHECKOUT_A CHECKOUT_B STUDY
# Compares metrics.parquet and every csv table; prints what differs and ends with status 1, or prints the count of equal files.
set -euo pipefail
a="$1/results/$3" b="$2/results/$3" equal=0 different=0
while read -r file; do
    if cmp -s "$a/$file" "$b/$file"; then
        equal=$((equal + 1))
    else
        echo "differs: $file"
        different=$((different + 1))
    fi
done < <(cd "$a" && find metrics.parquet tables -name '*.parquet' -o -name '*.csv' | sort)
echo "$equal files equal, $different differ"
[ "$different" -eq 0 ] && [ "$equal" -gt 1 ]
