# What there is to do here, by name. `make` alone lists it; the work is in scripts/ and in Package.swift.
#
# Everything works as root or with sudo, from a fresh clone, without a terminal.

LAB_SECONDS ?=
LAB_OPTIONS ?=
NFV_BOOTSTRAP ?=
BENCH ?=
BENCH_QUICK ?=
SOAK_TIMES ?= 100
SOAK_MINUTES ?= 60
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
RELEASE := .build/release
SOURCES := Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Sources

.DEFAULT_GOAL := help
.PHONY: help run test soak build build-tests bench bench-instructions schemas test-kafka format lint prepare install-packages huge-pages clean

help: ## List the targets.
	@echo "NFVactor: stateful network functions, one actor per flow. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '  make %-17s %s\n' "$$name" "$$what"; done

run: build huge-pages ## Run the lab: real clients and servers through two runtimes; LAB_SECONDS=n ends it by itself.
	$(SUDO) $(RELEASE)/nfvactor lab $(if $(LAB_SECONDS),--seconds $(LAB_SECONDS)) $(LAB_OPTIONS)

test: build build-tests huge-pages ## Run all tests, the lab included.
	@scripts/run-tests.sh

soak: build build-tests ## Do harm for long: simulated worlds SOAK_TIMES times, the bus's long tests, then a real platform for SOAK_MINUTES.
	$(RELEASE)/nfvactor simulate --times $(SOAK_TIMES) --from $$(date +%s)00000
	NFV_LONG=1 swift test --disable-xctest --skip-build --filter 'BusTests|Hostile|Fuzz|HTTPRule|WireParsing'
	$(SUDO) $(RELEASE)/nfvactor soak --minutes $(SOAK_MINUTES) --data .build/soak.jsonl

build: prepare ## Build the executables (release) into .build/release.
	swift build -c release

build-tests: prepare
	swift build --build-tests

# BENCH=scaling and BENCH=recovery run the programs themselves.
bench: prepare $(if $(filter-out scaling recovery,$(BENCH)),,build) ## Measure: BENCH=name for one benchmark, BENCH_QUICK=1 for a one-minute version of each.
	cd Benchmarks && swift build -c release && BENCH='$(BENCH)' BENCH_QUICK='$(BENCH_QUICK)' .build/release/Benchmarks

bench-instructions: prepare ## Count the worker's instructions per packet, and those of the same work in C.
	@command -v valgrind >/dev/null || $(SUDO) apt-get install -y -qq --no-install-recommends valgrind
	cd Benchmarks && swift build -c release
	for benchmark in instructions-c-loop instructions-opening-c-loop instructions-migration instructions-opening instructions; do \
	  scripts/instructions-per-packet.sh $$benchmark || exit 1; done

schemas: install-packages ## Write Sources/CSchemas from schemas/*.proto.
	schemas/generate.sh

test-kafka: build-tests ## Run the bus's conformance suite against a broker: NFV_BOOTSTRAP=host:port.
	@test -n "$(NFV_BOOTSTRAP)" || { echo "Say which broker: make test-kafka NFV_BOOTSTRAP=host:port" >&2; exit 64; }
	NFV_BOOTSTRAP=$(NFV_BOOTSTRAP) swift test --skip-build --filter BusTests

format: ## Format the sources in place.
	swift format format --in-place --parallel --recursive $(SOURCES)

lint: ## Say where the sources differ from the format.
	swift format lint --parallel --recursive --strict $(SOURCES)

prepare: install-packages
	@scripts/swift-present.sh
	@scripts/link-dpdk.sh

install-packages: ## Install the Debian packages that are missing.
	@scripts/install-packages.sh

huge-pages: ## Set aside huge pages if the kernel lets us; everything also works without.
	@scripts/huge-pages.sh

clean: ## Remove what builds and runs leave in this folder.
	rm -rf .build nfv-bus-data lab-summary.json lab-logs
