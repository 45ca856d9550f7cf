#!/bin/sh
# Writes the tables of docs/performance.md anew: the newest record of each adapter in benches/results, between the marks.
set -eu
cd "$(dirname "$0")/.."

page=docs/performance.md
tables=$(mktemp)
trap 'rm -f "$tables"' EXIT

# "date slug file" of each record, the newest of each adapter last.
for file in benches/results/*.json; do
    case $file in
    *.peers*.json | 'benches/results/*.json') continue ;;
    esac
    date=$(sed -n 's/^  "date": "\([^"]*\)".*/\1/p' "$file")
    name=$(basename "$file" .json)
    echo "$date ${name%-*} ${file%.json}"
done | sort | awk '{ newest[$2] = $3 } END { for (slug in newest) print slug, newest[slug] }' | sort |
while read -r slug prefix; do
    name=$(basename "$prefix")
    printf '\n### %s\n\n' "$slug"
    cat "$prefix.md"
    printf '\n![The rates under the ceilings](../benches/results/%s.roofline.svg)\n' "$name"
    if [ -f "$prefix.peers.md" ]; then
        printf '\nOther libraries on the same machine: median milliseconds, and how many times those of tilewise.\n\n'
        cat "$prefix.peers.md"
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
mv "$tables.page" "$page"
