# `make demo` and `make test` work on a bare Debian 12 with rustup's toolchain:
# what else they need, `setup` installs. One profile, release, is used for
# everything, because RocksDB takes many minutes to compile.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(HOME)/.cargo/bin:$(PATH)

TARGET := $(or $(CARGO_TARGET_DIR),target)
CAIRN := $(TARGET)/release/cairn
CARGO_DENY_VERSION := 0.20.2
GARAGE_VERSION := 2.5.0
S3S_FS_VERSION := 0.14.1
# As few of its parts as make a cluster, and little optimised: it compiles for half an hour.
GARAGE = CARGO_PROFILE_RELEASE_OPT_LEVEL=1 tests/setup/tool.sh garage $(GARAGE_VERSION) garage --no-default-features --features bundled-libs,lmdb
# Keeps objects as files: what a backup to S3 takes beside what a server does with it.
S3S_FS = tests/setup/tool.sh s3s-fs $(S3S_FS_VERSION) s3s-fs --features binary

.PHONY: help setup build demo test lint lint-deny test-python simulate torture fuzz bench bench-compare bench-history bench-index bench-gc bench-remote test-cluster measure clean

help: ## Say what can be made.
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## Install what is missing.
	@tests/setup/setup.sh

build: setup ## Build the cairn program.
	cargo build --release --locked

demo: build ## Back up, change, restore and compare 1.5 GB.
	@/usr/bin/python3 tests/demo/demo.py "$(CAIRN)"

# cargo's own closing lines stay last: continuous integration reads them.
test: setup ## Check and test everything.
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory test-python
	cargo test --release --locked --workspace --no-fail-fast

lint: setup ## Check formatting and lints.
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

lint-deny: setup ## Check licences and sources of all dependencies.
	deny=$$(tests/setup/tool.sh cargo-deny $(CARGO_DENY_VERSION) cargo-deny) && \
	"$$deny" --locked check licenses bans sources

test-python: setup ## Test what judges the demo, the comparisons and the cluster.
	cd tests/demo && /usr/bin/python3 -m unittest --quiet
	cd benches/compare && /usr/bin/python3 -m unittest --quiet
	cd benches/remote && /usr/bin/python3 -m unittest --quiet
	cd tests/cluster && /usr/bin/python3 -m unittest --quiet

simulate: setup ## Run SEEDS (10000) simulations from seed FIRST (0) on services of a PROFILE (strong; all: each).
	cargo run --release --locked --package cairn-tests --example simulate -- $(or $(SEEDS),10000) $(or $(FIRST),0) $(or $(PROFILE),strong)

torture: build ## Let real processes work on one repository and die, for SECONDS (300), from SEED.
	cargo run --release --locked --package cairn-tests --example torture -- $(or $(SECONDS),300) $(SEED)

fuzz: setup ## Run each fuzz target for FUZZ_SECONDS (60).
	tests/setup/fuzz.sh

bench: setup ## Run the micro-benchmarks, or those named BENCH.
	cargo bench --locked --package cairn-benches --bench engine -- $(BENCH)

bench-compare: build ## Measure cairn beside restic, Borg and rustic (COMPARE_OPTIONS).
	/usr/bin/python3 benches/compare/compare.py --cairn "$(CAIRN)" $(COMPARE_OPTIONS)

bench-history: build ## Measure a month of backups each hour, or each day (HISTORY_OPTIONS).
	/usr/bin/python3 benches/history/history.py --cairn "$(CAIRN)" $(HISTORY_OPTIONS)

bench-index: setup ## Measure an index of 50 million chunks (8 GB of disk; INDEX_OPTIONS).
	cargo run --release --locked --package cairn-benches --example index -- $(INDEX_OPTIONS)

bench-gc: build ## Measure collections after one of 720 snapshots was forgotten, and backups beside them (4 GB of disk; GC_OPTIONS).
	cargo run --release --locked --package cairn-benches --example gc -- $(GC_OPTIONS)
	/usr/bin/python3 benches/measure/beside.py --cairn "$(CAIRN)" --work .work/beside

bench-remote: build ## Measure cairn on S3 beside a disk, restic and rustic (1 GB of disk; REMOTE_OPTIONS).
	garage=$$($(GARAGE)) && s3s=$$($(S3S_FS)) && /usr/bin/python3 benches/remote/remote.py --cairn "$(CAIRN)" --garage "$$garage" --s3s-fs "$$s3s" $(REMOTE_OPTIONS)

test-cluster: build ## Back up to three nodes of Garage that are killed and cut off, as root (Garage compiles for half an hour).
	garage=$$($(GARAGE)) && /usr/bin/python3 tests/cluster/cluster.py --cairn "$(CAIRN)" --garage "$$garage"

measure: build ## Measure memory and time at full size (45 GB of disk).
	/usr/bin/python3 benches/measure/measure.py --cairn "$(CAIRN)" $(MEASURE_OPTIONS)

clean: ## Remove all that was built, and the tools and data in .work.
	cargo clean
	rm -rf .venv .work
