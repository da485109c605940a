# Kedge. `make run` and `make test` do their own set-up on a fresh machine with
# Go, Node with npm, and (for tests) a C compiler, Python 3 with pip, Java with
# Maven. Fetched things land in .deps, each pinned with its checksum by the lock
# file of its own ecosystem under third_party.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

CC ?= cc
# go-nvml and the race detector want cgo; without a C compiler everything else builds.
export CGO_ENABLED ?= $(shell command -v $(CC) >/dev/null 2>&1 && echo 1 || echo 0)
# go-nvml calls what its own header deprecates: some 200 lines of warnings.
export CGO_CFLAGS ?= -g -O2 -Wno-deprecated-declarations

GO      ?= go
DEPS    := .deps
DATA    ?= kedge-data
PKGS    ?= ./...
REAL    ?= ../shared/data
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COUNT   ?= 1
TESTFLAGS ?= -p 2 -timeout 30m
IN_MEMORY := internal/testenv/in-memory

# Packages whose tests start engines, brokers and processes by the dozen: one at
# a time, since two of them want more than the two cores that a test may count on.
HEAVY := ingest|cmd/kedge|stream|stream/broker|store|features|internal/script|internal/kafkatest

SCHEMAS := $(DEPS)/apicurio.stamp
FETCHED := $(filter-out $(SCHEMAS),$(patsubst third_party/%/fetch.sh,$(DEPS)/%.stamp,$(wildcard third_party/*/fetch.sh)))
CUDA    := $(DEPS)/python/xgboost-cuda.stamp
VENVS   := $(filter-out $(CUDA),$(patsubst third_party/python/%/requirements.txt,$(DEPS)/python/%.stamp,$(wildcard third_party/python/*/requirements.txt)))

.PHONY: audit browsers bench-grafana rules build plugin run demo test race bench torture lint fix gen check dist deps deps-run cuda clients clean

build: ## bin/kedge
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/kedge ./cmd/kedge

run: deps-run build ## embedded broker and engine, with the built-in demo stream
	exec bin/kedge run --data-dir $(DATA) --demo

demo: deps-run build ## a rollout decided by outcomes; REAL names a folder with elec.csv and the employment files
	examples/rollout.sh "$(REAL)"

deps-run: $(DEPS)/chdb.stamp ## what `make run` needs

deps: deps-run $(FETCHED) $(VENVS) ## what the tests need beside it

cuda: $(CUDA) ## XGBoost's library for NVIDIA GPUs (130 MB), which only trainer.library or KEDGE_LIBXGBOOST makes use of

$(DEPS)/chdb.stamp: third_party/chdb/package.json third_party/chdb/package-lock.json third_party/chdb/.npmrc
	mkdir -p $(DEPS)/chdb
	cp $^ $(DEPS)/chdb/
	cd $(DEPS)/chdb && npm ci --silent
	touch $@

$(DEPS)/%.stamp: third_party/%/fetch.sh
	third_party/$*/fetch.sh $(DEPS)/$*
	touch $@

$(DEPS)/python/%.stamp: third_party/python/%/requirements.txt
	python3 -m venv --clear $(DEPS)/python/$*
	$(DEPS)/python/$*/bin/pip install --quiet --require-hashes --no-deps -r $<
	touch $@

test: deps $(DEPS)/grafana-plugin.stamp ## everything that a change must pass
	$(GO) vet $(PKGS)
	$(GO) list $(PKGS) | { grep -vE '/($(HEAVY))$$' || true; } | xargs -r $(IN_MEMORY) $(GO) test $(TESTFLAGS)
	$(GO) list $(PKGS) | { grep -E '/($(HEAVY))$$' || true; } | xargs -r $(IN_MEMORY) $(GO) test $(TESTFLAGS) -p 1
	cd grafana-plugin && npm run --silent typecheck && npm test --silent

$(DEPS)/grafana-plugin.stamp: grafana-plugin/package.json grafana-plugin/package-lock.json grafana-plugin/.npmrc
	mkdir -p $(DEPS)
	cd grafana-plugin && npm ci --silent --ignore-scripts
	touch $@

plugin: $(DEPS)/grafana-plugin.stamp ## the Grafana data source, in grafana-plugin/dist
	cd grafana-plugin && npm run --silent build
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o grafana-plugin/dist/gpx_kedge_linux_amd64 ./grafana-plugin/pkg

browsers: deps-run $(DEPS)/grafana-plugin.stamp ## the data source on a page of the packages of Grafana 11, 12 and 13, in Chromium
	for v in 11 12; do npm ci --silent --ignore-scripts --prefix grafana-plugin/browser/hosts/$$v; done
	for v in hosts/11 hosts/12 ..; do \
		KEDGE_GRAFANA_HOST=$$PWD/grafana-plugin/browser/$$v $(GO) test ./cmd/kedge -run '^TestPluginInABrowser$$' -count 1 || exit 1; done

bench-grafana: deps-run ## what the data source adds, and panels over 100 million rows: ten minutes, 6 GB of disk
	$(GO) test -run '^$$' -bench 'BenchmarkPluginOverhead$$' -benchtime 5000x ./cmd/kedge
	$(GO) test -run '^$$' -bench 'BenchmarkOverhead$$' -benchtime 5000x ./grafana-plugin/pkg/plugin
	KEDGE_BENCH_ROWS=100000000 $(GO) test -run '^$$' -bench BenchmarkPanelsOverDerivedState -timeout 60m -v ./bench

rules: ## the Prometheus rules, where promtool is at hand
	promtool check rules alerts/prometheus-rules.yaml
	promtool test rules alerts/prometheus-rules_test.yaml

race: deps ## the same under the race detector
	CGO_ENABLED=1 $(IN_MEMORY) $(GO) test -race -p 1 -timeout 30m $(PKGS)

bench: deps ## benchmarks; the numbers land in bench/results
	mkdir -p bench/results
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) -p 1 -timeout 60m $(PKGS) \
		| tee bench/results/$$(date -u +%Y%m%d)-$$(git rev-parse --short HEAD).txt

torture: deps $(SCHEMAS) ## hours of kills and faults; KEDGE_KILLS (1000), KEDGE_SEED
	KEDGE_TORTURE=1 $(IN_MEMORY) $(GO) test -run Torture -count 1 -p 1 -timeout 12h -v $(PKGS)

lint: ## formatting, vet, staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "not gofmt-ed: $$bad"; exit 1; }
	$(GO) vet $(PKGS)
	$(GO) tool -modfile=internal/tools/go.mod staticcheck $(PKGS)

audit: build ## code, secrets, licences, bill of materials, freshness, known vulnerabilities; reports in .audit
	GO=$(GO) internal/tools/audit.sh .audit

fix: ## rewrite what tools can rewrite
	gofmt -w $$(git ls-files '*.go')
	$(GO) fix $(PKGS)

gen: ## generated files
	$(GO) generate $(PKGS)

check: lint build ## quick look before a commit: lint, build, who imports whom
	$(GO) test ./internal/arch

clients: deps build ## other people's clients against a running kedge; REAL names a folder with elec.csv
	@for suite in clients/*/run.sh; do [ -e "$$suite" ] || continue; echo "== $$suite"; REAL="$(REAL)" "$$suite"; done
	@for suite in feast kafka mlflow oip; do echo "== $$suite, under TLS with a key"; CLOSED=1 clients/$$suite/run.sh; done

dist: deps-run build ## one archive that runs without Go, Node, Python or Java
	./internal/tools/dist.sh bin/kedge $(DEPS)/chdb release

clean: ## everything built, nothing fetched
	rm -rf bin release
