# Everything that is done with this checkout. `make` alone lists the targets. The work is in scripts/, whose files say
# what they do; what is dear to make (PHP, Go, the linter) is kept outside the checkout, see scripts/progress.sh.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.SILENT:
.DEFAULT_GOAL := help

TAGS        := php,nowatcher,nobrotli,nomercure
VERSION     := $(shell git describe --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -X main.version=$(VERSION)
APP         ?= examples/hello
FUZZTIME    ?= 30s
BENCH       ?= .
ROUNDS      ?= 5
SEED        ?= 1
FOR         ?= 600
KILLS       ?= 20
ROLLS       ?= 20
EXT         ?=
# The packages without C, in which the race detector sees everything.
RACE        := /(storage|queue|cron|raftfsm|workers|wshub|internal)(/|$$)

GO          := scripts/env.sh go
GO_PHP      := scripts/env.sh --php go

.PHONY: help
help: ## list the targets
	awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Use

.PHONY: run
run: build ## set up, build, and run the example application (APP=directory)
	exec bin/pogod serve --app $(APP)

.PHONY: cluster
cluster: build ## three nodes on loopback, each with the example application; data in .cluster/ (APP=directory)
	exec scripts/cluster.sh $(APP)

.PHONY: setup
setup: ## find or make what is needed: Go, a thread-safe PHP, system packages
	scripts/system.sh
	printf 'Go:  %s\n' "$$($(GO) version)"
	$(GO) mod download
	printf 'PHP: %s\n' "$$(scripts/php.sh)"

.PHONY: build
build: ## build bin/pogod with PHP, and bin/pogo.so for the php command line
	$(GO_PHP) build -tags $(TAGS) -ldflags "$(LDFLAGS) -X main.phpBinary=$$("$$(scripts/php.sh)" --php-binary)" -o bin/pogod .
	scripts/pogo-so.sh
	cp scripts/pogod-php.sh bin/pogod-php

.PHONY: build-nophp
build-nophp: ## build bin/pogod-nophp: a node without PHP, without C
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o bin/pogod-nophp .

.PHONY: php-ext
php-ext: ## build extensions for this PHP from the distribution's sources (EXT="redis apcu xdebug")
	scripts/php-ext.sh $(EXT)

.PHONY: clean
clean: ## remove what was built here (the cache outside the checkout stays)
	rm -rf bin

##@ Check

.PHONY: test
test: ## set up, then lint and every test; shows the seconds of each stage
	scripts/stages.sh setup lint test-nophp build test-php test-race

# Tests start programs that Go's cache of results knows nothing of, so nothing is taken from it. Those of clusters mostly
# wait, so four run beside each other.

.PHONY: test-nophp
test-nophp: ## build, vet and test without PHP and without C
	CGO_ENABLED=0 $(GO) build ./...
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) test -count=1 -parallel 4 -timeout 20m ./...

.PHONY: test-php
test-php: build ## the tests with PHP
	$(GO_PHP) test -count=1 -tags $(TAGS) -timeout 30m . ./phpext/... ./cluster_test

.PHONY: test-race
test-race: ## the packages without C under the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 30m $$($(GO) list ./... | grep -E '$(RACE)')

.PHONY: test-crash
test-crash: build ## the long kill test: 50 rounds of SIGKILL (POGOD_CRASH_ROUNDS=n)
	POGOD_CRASH_ROUNDS=$${POGOD_CRASH_ROUNDS:-50} $(GO_PHP) test -tags $(TAGS) ./cluster_test -run Crash -count=1 -timeout 60m -v

.PHONY: test-cluster
test-cluster: build ## three nodes: ten minutes of faults, then the leader killed and each node restarted 20 times (SEED=1 FOR=600 KILLS=20 ROLLS=20, FAULTS=all: of disks, data and clocks too; needs root; records stay in _artifacts)
	POGOD_SEED=$(SEED) POGOD_FAULTS=$(FAULTS) POGOD_CLUSTER_SECONDS=$(FOR) CGO_ENABLED=0 $(GO) test ./cluster_test -run 'TestClusterFaults' -count=1 -timeout 60m -v -artifacts
	POGOD_SEED=$(SEED) POGOD_CRASH_ROUNDS=$(KILLS) $(GO_PHP) test -tags $(TAGS) ./cluster_test -run 'TestClusterKillLeader' -count=1 -timeout 60m -v
	POGOD_SEED=$(SEED) POGOD_ROLLS=$(ROLLS) CGO_ENABLED=0 $(GO) test ./cluster_test -run 'TestClusterRollingRestart' -count=1 -timeout 60m -v

.PHONY: fuzz
fuzz: ## every fuzz target for 30 s each (FUZZTIME=30s)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## check Go code, with and without PHP, and shell scripts
	scripts/lint.sh $(TAGS)

.PHONY: fmt
fmt: ## format Go code
	scripts/env.sh "$$(scripts/tool.sh gofumpt)" -l -w .

.PHONY: vuln
vuln: ## look for known vulnerabilities (asks a database on the network)
	scripts/env.sh --php "$$(scripts/tool.sh govulncheck)" -tags $(TAGS) ./...

.PHONY: bench
bench: ## run benchmarks six times and summarize them (BENCH=regexp); keeps bin/bench-VERSION.txt to compare
	mkdir -p bin
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count 6 ./... | tee bin/bench-$(VERSION).txt
	"$$(scripts/tool.sh benchstat)" bin/bench-$(VERSION).txt

.PHONY: bench-php
bench-php: build ## pushes, job cycles, dispatches and events from PHP, beside the disk, in five interleaved rounds (ROUNDS=5)
	$(GO_PHP) test -c -tags $(TAGS) -o bin/bench.test ./cluster_test
	cd cluster_test && POGOD_BIN=$(CURDIR)/bin/pogod ../scripts/rounds.sh $(ROUNDS) ../bin/bench.test | tee ../bin/bench-php-$(VERSION).txt
	"$$(scripts/tool.sh benchstat)" bin/bench-php-$(VERSION).txt

.PHONY: bench-web
bench-web: build ## pages beside the bare FrankenPHP library, in both modes, in interleaved rounds (ROUNDS=5)
	$(GO_PHP) build -tags $(TAGS) -o bin/webbench ./phpext/webbench
	bin/webbench -rounds $(ROUNDS) 2>/dev/null
