#!/bin/sh
# Records what this machine's adapter reaches: benches/results/ADAPTER-COMMIT.json with the figures and the ceilings, a table and
# pictures of them, the same for other libraries, and the tables of docs/performance.md anew. On a quiet machine, please.
#
#   scripts/bench-record.sh TILEWISE [ARGUMENT OF bench]…      such as --large on a GPU; without PEERS=none other libraries too
set -eu
tilewise=$(realpath "$1")
shift
cd "$(dirname "$0")/.."

commit=$(git rev-parse --short=12 HEAD)
if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
    echo "There are changes that are not committed: a record has to say what it is of." >&2
    exit 1
fi
# The adapter's name up to a bracket, as a file's name.
adapter=$("$tilewise" bench --quick --kernel gather --json | sed -n 's/^  "adapter": "\([^"(]*\).*/\1/p')
slug=$(printf '%s' "$adapter" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-' | sed 's/^-*//; s/-*$//')
prefix=benches/results/$slug-$commit
mkdir -p benches/results

# A figure that can't be true ends this.
"$tilewise" bench "$@" --commit "$commit" --save "$prefix.json" --plot "$prefix.bars.svg" --roofline "$prefix.roofline.svg"
"$tilewise" bench --from "$prefix.json" --markdown >"$prefix.md"
if [ "${PEERS:-}" != none ]; then
    scripts/bench-peers.sh "$prefix"
fi
scripts/performance-tables.sh
echo "Recorded as $prefix.*; docs/performance.md has the tables."
