#!/bin/sh
# Records what this machine's adapter reaches: benches/results/ADAPTER-DRIVER-COMMIT.json with the figures and the ceilings, a
# table and pictures of them, the same for other libraries, and the tables of docs/performance.md anew. On a quiet machine, please.
#
#   scripts/bench-record.sh TILEWISE [ARGUMENT OF bench]…      such as --large on a GPU; without PEERS=none other libraries too
#
# TILEWISE_RUNNER=scripts/mesa.sh records the newest Mesa.
set -eu
tilewise=$(realpath "$1")
shift
cd "$(dirname "$0")/.."

commit=$(git rev-parse --short=12 HEAD)
# Records of the same commit, on other drivers, may be there already.
if [ -n "$(git status --porcelain --untracked-files=no -- . ':!docs/performance.md' ':!benches/results')" ]; then
    echo "There are changes that are not committed: a record has to say what it is of." >&2
    exit 1
fi
slug=$(${TILEWISE_RUNNER:-} "$tilewise" bench --quick --kernel gather --json | scripts/record-name.sh)
prefix=benches/results/$slug-$commit
mkdir -p benches/results

# A figure that can't be true ends this.
${TILEWISE_RUNNER:-} "$tilewise" bench "$@" --commit "$commit" --save "$prefix.json" --plot "$prefix.bars.svg" \
    --roofline "$prefix.roofline.svg"
"$tilewise" bench --from "$prefix.json" --markdown >"$prefix.md"
if [ "${PEERS:-}" != none ]; then
    scripts/bench-peers.sh "$prefix"
fi
scripts/performance-tables.sh
echo "Recorded as $prefix.*; docs/performance.md has the tables."
