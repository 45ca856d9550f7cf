#!/bin/sh
# Writes the tables of docs/performance.md anew: the newest record of each adapter and driver in benches/results, between the marks.
#
#   scripts/performance-tables.sh [RESULTS PAGE]
set -eu
cd "$(dirname "$0")/.."

results=${1:-benches/results}
page=${2:-docs/performance.md}
tables=$(mktemp)
trap 'rm -f "$tables" "$tables.page"' EXIT

if [ "$(grep -c '^<!-- records: ' "$page")" -ne 2 ] || ! grep -q '^<!-- records: end -->$' "$page"; then
    echo "$page: expected a line '<!-- records: … -->' and a line '<!-- records: end -->'" >&2
    exit 1
fi

# "date slug file" of each record; of each slug the newest is the last.
for file in "$results"/*.json; do
    case $file in
    *.peers.json | "$results/*.json") continue ;;
    esac
    date=$(sed -n 's/^  "date": "\([^"]*\)".*/\1/p' "$file")
    name=$(basename "$file" .json)
    echo "$date ${name%-*} $name"
done | sort | awk '{ newest[$2] = $3 } END { for (slug in newest) print slug, newest[slug] }' | sort |
while read -r slug name; do
    printf '\n### %s\n\n' "$slug"
    cat "$results/$name.md"
    printf '\n![The rates under the ceilings](../benches/results/%s.roofline.svg)\n' "$name"
    if [ -f "$results/$name.peers.md" ]; then
        printf '\nOther libraries on the same machine: median milliseconds, and how many times those of tilewise.\n\n'
        cat "$results/$name.peers.md"
    fi
done >"$tables"

awk -v tables="$tables" '
    /^<!-- records: end -->$/ { skipping = 0 }
    !skipping { print }
    /^<!-- records: / && !/end -->$/ {
        skipping = 1
        while ((getline line < tables) > 0) print line
        print ""
    }
' "$page" >"$tables.page"
cat "$tables.page" >"$page"
