#!/usr/bin/env bash
# What must pass before a change lands: the README's test command, then format, lints, documentation, and each benchmark
# once so that none can rot.
set -euo pipefail
cd "$(dirname "$0")/.."

# A shader that a browser's compiler, Tint, would reject fails here; Tint being absent is a failure too.
export REQUIRE_TINT=1

make test
make lint
# (Of the whole workspace, as the tests are: one package alone has its own features of wgpu, and so its own wgpu.)
cargo test --workspace --bench kernels
