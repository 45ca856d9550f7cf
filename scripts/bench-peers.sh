#!/bin/sh
# Times tilewise beside other libraries on the same shapes (peers/cases.json) and prints one table: burn on the same adapter,
# candle and faer on the processor, and PyTorch and ONNX Runtime where Python has them. Says what is not installed.
#
#   scripts/bench-peers.sh [PREFIX]
#
# With a prefix, such as benches/results/llvmpipe-1a2b3c4, the figures go to PREFIX.peers*.json and the table to
# PREFIX.peers.md. PYTHON chooses the interpreter; PEERS the libraries of the Rust program (default: all).
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
scratch=
if [ $# -gt 0 ]; then
    prefix=$1
else
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    prefix=$scratch/run
fi

target=${CARGO_TARGET_DIR:-peers/target}
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    # burn's features would otherwise make the library's own build anew each time.
    target=$CARGO_TARGET_DIR/peers
fi
echo "Building peers (burn takes minutes) …" >&2
CARGO_TARGET_DIR=$target cargo build --release --locked --manifest-path peers/Cargo.toml

only=
for peer in ${PEERS:-}; do
    only="$only --only $peer"
done
# shellcheck disable=SC2086 # names of libraries, without spaces
"$target/release/tilewise-peers" $only --json "$prefix.peers.json" >/dev/null
set -- "$prefix.peers.json"

# $1: module, $2: script, $3: what it is called
python_peer() {
    if ! command -v "$python" >/dev/null 2>&1; then
        echo "$3 is not timed: there is no $python." >&2
    elif ! "$python" -c "import $1" >/dev/null 2>&1; then
        echo "$3 is not timed: $python has no module $1." >&2
    else
        "$python" "peers/$2.py" --out "$prefix.peers-$2.json" || exit 1
        return 0
    fi
    return 1
}
if python_peer torch torch_bench PyTorch; then set -- "$@" "$prefix.peers-torch_bench.json"; fi
if python_peer onnxruntime ort_bench "ONNX Runtime"; then set -- "$@" "$prefix.peers-ort_bench.json"; fi

"$target/release/tilewise-peers" --join "$@" | tee "$prefix.peers.md"
