# `make run` shows a deployment on this machine; `make test` proves everything. Both install what is missing.

CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/paas
export CARGO_TARGET_DIR ?= $(CACHE)/target
# mold links several times faster than the default linker; without it the build just takes longer.
ifneq ($(shell command -v mold),)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS ?= -Clink-arg=-fuse-ld=mold
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS ?= -Clink-arg=-fuse-ld=mold
endif
BIN = $(CARGO_TARGET_DIR)/debug
# What is off by default is tested, too.
FEATURES = --features paas-http/opentelemetry

.PHONY: run demo test machine lint test-rust doc deny python simulate torture bench measure

# `tools` may only just have installed the linker: a second make sees it.
run: machine
	@$(MAKE) --no-print-directory demo

demo:
	cargo build -p paas-examples -p paas-proxy --bins
	@exec $(BIN)/demo

# Everything that runs needs: an engine that answers and base images.
machine:
	examples/setup/tools.sh
	examples/setup/engine.sh
	examples/setup/base-images.sh

test: machine
	examples/setup/postgres.sh
	$(MAKE) lint test-rust doc deny python

lint:
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets $(FEATURES) --quiet -- -D warnings

# The tests that are programs of their own find the proxy beside them.
test-rust:
	cargo build --quiet -p paas-proxy --bins
	examples/setup/test.sh $(FEATURES)

doc:
	cargo test --workspace $(FEATURES) --doc --quiet
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace $(FEATURES) --no-deps --quiet

deny:
	examples/setup/deny.sh

python:
	paas-py/check

# `make simulate SEEDS=100000` plays that many stories of servers that break, `make simulate SEED=17` tells one of them.
# Optimised, many stories take a fifth of the time.
simulate:
	SIMULATE_SEEDS=$(SEEDS) SIMULATE_SEED=$(SEED) \
	CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
		cargo test $(if $(SEED),,--release) --quiet -p paas-core --test simulation every_seed -- --nocapture

# `make torture` kills the real server a thousand times and the engine twenty times, lets 500 containers drift, has three
# servers that are killed and paused deploy 500 times, and deploys 20 apps under traffic 100 times, which takes hours;
# `make torture KILLS=50 ENGINE_KILLS=5 DRIFTS=10 DEPLOYMENTS=30 TRAFFIC=20 SEED=7` does it as often as it says.
torture: machine
	examples/setup/postgres.sh
	cargo build --quiet -p paas-proxy --bins
	TORTURE_KILLS=$(or $(KILLS),1000) TORTURE_DRIFTS=$(or $(DRIFTS),500) \
	TORTURE_ENGINE_KILLS=$(or $(ENGINE_KILLS),20) TORTURE_DEPLOYMENTS=$(or $(DEPLOYMENTS),500) \
	TORTURE_TRAFFIC=$(or $(TRAFFIC),100) TORTURE_SEED=$(SEED) \
		cargo test --quiet -p paas-examples --test torture -- --nocapture --test-threads=1

# Takes about ten minutes; `make bench ARGS="--only store,proxy"` runs a part, `ARGS=--quick` shows that it works.
bench: machine
	examples/setup/postgres.sh
	benches/setup.sh
	@$(MAKE) --no-print-directory measure

measure:
	cargo run --release --quiet -p paas-benches -- $(ARGS)
