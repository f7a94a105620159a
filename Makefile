# The front door of feast-rs. It needs cargo, python3 (3.11 or newer) and a C compiler; everything else goes into .build/
# and the cargo target directory, and is reused the next time.

SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
CARGO ?= cargo
CARGO_TARGET_DIR ?= target
override CARGO_TARGET_DIR := $(abspath $(CARGO_TARGET_DIR))
export CARGO_TARGET_DIR

VENV := $(abspath .build/venv)
PEER := $(abspath .build/feast-peer)
DEMO := $(abspath .build/demo)
TOOLS := $(abspath .build/tools)
ENVIRONMENT = $(PYTHON) scripts/environment.py

# What the wheel and the binary are made from.
SOURCES := $(shell find Cargo.toml Cargo.lock README.md LICENSE crates protos python -type f \
	! -path '*/tests/*' ! -path '*/.*' ! -name '*.pyc' ! -name '*.so' 2>/dev/null)

# The environment's Python is the one that pyo3 builds for; a change of it would compile the native module again.
WITH_VENV = PATH="$(VENV)/bin:$$PATH" PYO3_PYTHON="$(VENV)/bin/python" FEAST_PYTHON="$(VENV)/bin/python"

RUST_TESTS = INSTA_UPDATE=no $(WITH_VENV) $(CARGO) test --workspace --no-fail-fast
PYTHON_TESTS = (cd python && $(WITH_VENV) FEAST_PEER_PYTHON="$(PEER)/bin/python" \
	FEAST_PEER_EXTRAS="$(PEER)-extras" FEAST_PEER_SUBSTRAIT="$(PEER)-substrait" FEAST_BINARY="$(CARGO_TARGET_DIR)/debug/feast" \
	"$(VENV)/bin/python" -m pytest tests ../examples $(PYTEST_ARGUMENTS))
PIPELINES := $(abspath .build/pipelines)

say = @printf '\n==> %s\n'

.PHONY: help demo datastore test lint bench bench-offline bench-online bench-registry bench-transform fuzz pipelines wheel binary clean python-tests rust-tests dev-module services tools venv peer

help: ## show this list
	@awk 'BEGIN { FS = ":.*## "; print "make ..." } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

demo: wheel ## the whole story on real flights: build the wheel, install it, run examples/flights
	$(say) "demo: installing the wheel into .build/demo (a minute the first time)"
	@$(ENVIRONMENT) "$(DEMO)" scripts/requirements/demo.txt dist/feast_rs-*.whl
	$(say) "demo: running examples/flights (about a minute)"
	@"$(DEMO)/bin/python" examples/flights/demo.py

test: services dev-module peer ## all tests: Rust, Python, examples, and both against Feast 0.67.0
	@status=0; \
	printf '\n==> Rust tests (a few minutes)\n'; $(RUST_TESTS) || status=1; \
	printf '\n==> Python tests, also against Feast 0.67.0 (a few minutes)\n'; $(PYTHON_TESTS) || status=1; \
	if [ $$status = 0 ]; then printf '\n==> all tests passed\n'; \
	else printf '\n==> some tests failed, see above\n'; fi; exit $$status

rust-tests: services dev-module ## only the Rust tests
	@$(RUST_TESTS)

python-tests: services dev-module peer ## only the Python tests and those of the examples; PYTEST_ARGUMENTS="-k push"
	@$(PYTHON_TESTS)

# No package registry has the emulator: a lane of its own.
datastore: venv ## the Datastore store against Google's emulator (needs Java and the Cloud SDK's emulator)
	@$(WITH_VENV) $(CARGO) test --no-run -p feast-online -p feast-python --test datastore
	@$(WITH_VENV) scripts/datastore.sh $(CARGO) test -p feast-online -p feast-python --test datastore

# Their libraries take 980 MB and more than a minute to install, more than everything else: a lane of its own.
pipelines: dev-module ## the examples of PySpark (needs Java 17 or newer) and Apache Beam, run and checked
	$(say) ".build/pipelines: PySpark and Apache Beam (about 980 MB, more than a minute the first time)"
	@$(ENVIRONMENT) "$(PIPELINES)" scripts/requirements/pipelines.txt
	@"$(PIPELINES)/bin/python" scripts/develop.py "$(CARGO_TARGET_DIR)"
	@cd examples/push && "$(PIPELINES)/bin/python" -m pytest -q check_pipelines.py

# One compilation for the Rust tests and for the native module: same profile, same features.
dev-module: venv ## the native module in .build/venv, for `.build/venv/bin/python`
	$(say) "compiling the workspace, dev profile (ten to twenty minutes on two cores the first time)"
	@$(WITH_VENV) $(CARGO) build --workspace --lib --bins --tests
	@"$(VENV)/bin/python" scripts/develop.py "$(CARGO_TARGET_DIR)"

lint: venv ## formatting, clippy, ruff, dependency policy
	$(say) "cargo fmt"
	@$(CARGO) fmt --all --check
	$(say) "clippy (some minutes the first time)"
	@$(WITH_VENV) $(CARGO) clippy --workspace --all-targets -- -D warnings
	$(say) "ruff"
	@"$(VENV)/bin/ruff" check python examples bench scripts tests
	@"$(VENV)/bin/ruff" format --check python examples bench scripts tests
	$(say) "cargo deny"
	@$(CARGO) deny --version >/dev/null 2>&1 || [ -x "$(TOOLS)/bin/cargo-deny" ] || \
		$(CARGO) install --quiet --locked --root "$(TOOLS)" cargo-deny
	@PATH="$(TOOLS)/bin:$$PATH" $(CARGO) deny check licenses bans sources

bench: wheel binary peer ## start-up times and a plan without changes, beside Feast 0.67.0 in the same run
	$(say) "bench: installing the wheel into .build/demo"
	@$(ENVIRONMENT) "$(DEMO)" scripts/requirements/demo.txt dist/feast_rs-*.whl
	$(say) "bench: measuring (about two minutes)"
	@"$(VENV)/bin/python" bench/run.py --ours "$(DEMO)" --binary dist/feast --peer "$(PEER)" \
		--results .build/bench $(BENCH_ARGUMENTS)

bench-offline: wheel peer services ## point-in-time joins and materialization beside DuckDB, Polars and Feast; BENCH_ARGUMENTS='--cases all'
	$(say) "bench-offline: the environment .build/bench-offline (half a minute the first time)"
	@$(ENVIRONMENT) .build/bench-offline scripts/requirements/bench-offline.txt dist/feast_rs-*.whl
	$(say) "bench-offline: point-in-time joins: making rows and measuring (about twenty minutes)"
	@.build/bench-offline/bin/python bench/offline/run.py --ours .build/bench-offline --peer "$(PEER)" $(BENCH_ARGUMENTS)
	$(say) "bench-offline: materialization (about ten minutes)"
	@.build/bench-offline/bin/python bench/offline/materialize.py --ours .build/bench-offline --peer "$(PEER)" \
		--results .build/bench $(MATERIALIZE_ARGUMENTS)

bench-transform: wheel peer ## on-demand feature views over HTTP and over history, beside Feast 0.67.0 in the same run
	$(say) "bench-transform: installing the wheel into .build/demo"
	@$(ENVIRONMENT) "$(DEMO)" scripts/requirements/demo.txt dist/feast_rs-*.whl
	$(say) "bench-transform: measuring (a few minutes)"
	@"$(VENV)/bin/python" bench/transform.py --ours "$(DEMO)" --peer "$(PEER)" \
		--results .build/bench $(BENCH_ARGUMENTS)

bench-online: wheel dist/feast peer ## requests for online features: this server and Feast's on the same store; BENCH_ARGUMENTS="--store redis"
	@$(CARGO) build --release --locked -p feast-cli -p feast-python -p feast-server --bin feast --bin constant_body
	$(say) "bench-online: installing the wheel into .build/demo"
	@$(ENVIRONMENT) "$(DEMO)" scripts/requirements/demo.txt dist/feast_rs-*.whl
	$(say) "bench-online: measuring (about a quarter of an hour per store)"
	@$(PYTHON) bench/online/run.py --binary dist/feast --constant "$(CARGO_TARGET_DIR)/release/constant_body" \
		--ours "$(DEMO)" --peer "$(PEER)" --results .build/bench $(BENCH_ARGUMENTS)

bench-registry: wheel binary peer services ## apply, plan, list, one changed view and a server with up to 10,000 feature views; BENCH_ARGUMENTS="--registry postgres"
	$(say) "bench-registry: installing the wheel into .build/demo"
	@$(ENVIRONMENT) "$(DEMO)" scripts/requirements/demo.txt dist/feast_rs-*.whl
	$(say) "bench-registry: measuring (about fifteen minutes, most of them Feast's)"
	@"$(VENV)/bin/python" bench/registry.py --ours "$(DEMO)" --binary dist/feast --peer "$(PEER)" \
		--results .build/bench $(BENCH_ARGUMENTS)

# libFuzzer, with the stable compiler: our crates are instrumented by `scripts/fuzz_rustc.sh`. Inputs stay in .build/fuzz.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= registry_file registry_message configuration http_body online_cell connection
FUZZ_CARGO_TARGET_DIR ?= $(CARGO_TARGET_DIR)/fuzz

fuzz: tools ## random bytes for everything that reads bytes of others, FUZZ_SECONDS=60 per program; FUZZ_TARGETS=http_body
	$(say) "fuzz: compiling (a quarter of an hour the first time)"
	@RUSTC_WRAPPER="$(abspath scripts/fuzz_rustc.sh)" CARGO_TARGET_DIR="$(FUZZ_CARGO_TARGET_DIR)" \
		$(CARGO) build --manifest-path fuzz/Cargo.toml
	@"$(FUZZ_CARGO_TARGET_DIR)/debug/seeds" .build/fuzz
	@for target in $(FUZZ_TARGETS); do printf '\n==> fuzz: %s for %s seconds\n' $$target $(FUZZ_SECONDS); \
		mkdir -p .build/fuzz/$$target && "$(FUZZ_CARGO_TARGET_DIR)/debug/$$target" .build/fuzz/$$target \
		-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=4096 -artifact_prefix=.build/fuzz/$$target- \
		-print_final_stats=1 || exit 1; done

wheel: .build/wheel.stamp ## dist/feast_rs-*.whl, release build

.build/wheel.stamp: $(SOURCES) $(if $(wildcard dist/feast_rs-*.whl),,FORCE) | venv
	$(say) "wheel: release build (fifteen to twenty-five minutes on two cores the first time)"
	@mkdir -p dist && rm -f dist/feast_rs-*.whl
	@cd python && "$(VENV)/bin/maturin" build --release --locked --interpreter "$(VENV)/bin/python" --out ../dist
	@touch $@

binary: dist/feast ## dist/feast, the standalone command, release build

# Naming the Python crate gives the dependencies the features that they have in the wheel, so they are compiled once.
dist/feast: $(SOURCES) | tools
	$(say) "binary: release build (fifteen to twenty-five minutes on two cores, less after make wheel)"
	@mkdir -p dist
	@$(CARGO) build --release --locked -p feast-cli -p feast-python --bin feast
	@cp "$(CARGO_TARGET_DIR)/release/feast" dist/feast.new && mv dist/feast.new dist/feast

FORCE:

clean: ## remove .build, dist and the cargo target directory
	rm -rf .build dist python/feast/_feast.abi3.so
	$(CARGO) clean

tools:
	@command -v $(CARGO) >/dev/null 2>&1 || { \
		echo "error: \`$(CARGO)\` not found; install Rust 1.95 or newer from https://rustup.rs" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "error: \`$(PYTHON)\` not found; install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	@command -v cc >/dev/null 2>&1 || { \
		echo "error: no C compiler \`cc\`; Debian: apt-get install gcc libc6-dev" >&2; exit 1; }

services: ## the servers that tests talk to (Redis, PostgreSQL, MariaDB), from Debian's packages
	$(say) "services: the servers that tests start (a minute the first time)"
	@scripts/services.sh

venv: tools
	$(say) ".build/venv: what building and testing need (half a minute the first time)"
	@mkdir -p .build && $(ENVIRONMENT) "$(VENV)" scripts/requirements/dev.txt

peer: tools
	$(say) ".build/feast-peer: Feast 0.67.0 to compare with (a minute the first time)"
	@mkdir -p .build && $(ENVIRONMENT) "$(PEER)" scripts/requirements/peer.txt
	@for extra in extras substrait; do list=scripts/requirements/peer-$$extra.txt folder="$(PEER)-$$extra"; \
		cmp -s $$list "$$folder/.installed" || { rm -rf "$$folder" && "$(PEER)/bin/python" -m pip install --quiet \
		--disable-pip-version-check --no-deps --target "$$folder" --requirement $$list && cp $$list "$$folder/.installed"; } \
		|| exit 1; done
