#!/bin/sh
# Times tilewise beside other libraries on the same shapes (peers/cases.json) and prints tables: burn on the same adapter, candle
# and faer on the processor, and PyTorch and ONNX Runtime where Python has them. Says what is not installed.
#
#   scripts/bench-peers.sh [PREFIX [ARGUMENT OF tilewise-peers]…]      such as --only burn, --case attention, --rounds 3
#
# With a prefix, such as benches/results/llvmpipe-1a2b3c4, the figures go to PREFIX.peers.json and the tables to PREFIX.peers.md; ''
# is none. PYTHON chooses the interpreter. TILEWISE_RUNNER=scripts/mesa.sh runs all on the newest Mesa.
set -eu
cd "$(dirname "$0")/.."

prefix=${1:-}
[ $# -eq 0 ] || shift

target=peers/target
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    # burn's features would otherwise make the library's own build anew each time.
    target=$CARGO_TARGET_DIR/peers
fi
echo "Building peers (burn takes minutes) …" >&2
CARGO_TARGET_DIR=$target cargo build --release --locked --manifest-path peers/Cargo.toml

if [ -z "$prefix" ]; then
    exec ${TILEWISE_RUNNER:-} "$target/release/tilewise-peers" "$@"
fi
${TILEWISE_RUNNER:-} "$target/release/tilewise-peers" --json "$prefix.peers.json" "$@" >"$prefix.peers.md"
cat "$prefix.peers.md"
