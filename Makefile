# `make help` lists what there is. CONTRIBUTING.md says how it is meant.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The product is built without cgo, and so is what we test; the race detector alone needs it.
export CGO_ENABLED := 0

FUZZTIME ?= 10s
SEED     ?= 1
KILLS    ?= 20
ARGS     ?=

# Where goroutines meet, tests run a second time under the race detector. Test
# files over bulk data leave themselves out there with `//go:build !race`.
RACE_ROOMS := door courier state delivery outreach
race_packages = $(foreach room,$(RACE_ROOMS),$(if $(wildcard $(room)),./$(room)/...))

# Order is chance, and says its seed: -test.shuffle in the line of the package.
go_test := go test -vet=off -shuffle=on -timeout=25m

linter := bin/tools/golangci-lint

##@ Build and run

.PHONY: build
build: ## Build bin/everpoint, one static binary.
	go build -trimpath -o bin/everpoint ./cmd/everpoint

.PHONY: run
run: build ## Start two Regions here and lose one in the middle of a campaign; ARGS= goes to examples/run.sh.
	exec ./examples/run.sh $(ARGS)

.PHONY: clean
clean: postgres-stop ## Remove what was built, and the cluster of `make postgres`.
	rm -rf bin

##@ Test

.PHONY: test
test: deps fmt-check lint vet verify test-go test-foreign-here ## All that CI runs, in its order.

.PHONY: test-go
test-go: ## The tests alone, against SQLite and a PostgreSQL of their own, then the race group.
	@scripts/postgres.sh with $(MAKE) --no-print-directory test-plain test-race

.PHONY: test-plain
test-plain:
	$(go_test) ./...

.PHONY: test-race
test-race:
	CGO_ENABLED=1 $(go_test) -race $(race_packages)

.PHONY: test-foreign
test-foreign: ## Hold couriers and doubles against Postfix and Kannel; as root on Debian it installs them.
	scripts/foreign.sh

.PHONY: test-foreign-here
test-foreign-here:
	scripts/foreign.sh --if-possible

.PHONY: kills
kills: ## Kill a Region in the middle of a campaign KILLS (20) times, on SQLite and on two PostgreSQL servers.
	EVERPOINT_TEST_KILLS=$(KILLS) scripts/postgres.sh with go test -count=1 -timeout=60m -v ./test/processes -run 'TestTakeover$$|TestTakeoverPostgres'

.PHONY: verify
verify: ## Generate again and compare with what is committed.
	go run ./cmd/apigen --check

.PHONY: vet
vet: ## Run go vet.
	go vet ./...

.PHONY: lint
lint: $(linter) ## Run the linters of .golangci.yml.
	$(linter) run ./...

.PHONY: fmt-check
fmt-check: $(linter) ## Show what `make fmt` would change, and fail if that is anything.
	$(linter) fmt --diff

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (10s) each.
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: sim
sim: ## Run the simulation from SEED, or of a group from GROUP; GROUPS=500 runs so many.
ifdef GROUPS
	go test -count=1 -timeout=30m ./sim/... -run=TestGroups -args -groups=$(GROUPS)
else ifdef GROUP
	go test -count=1 -v ./sim/... -run=TestGroups -args -group=$(GROUP)
else
	go test -count=1 -v ./sim/... -run=TestSeeds -args -seed=$(SEED)
endif

.PHONY: bench
bench: build ## Measure this machine and print the table; ARGS='-only lag,kill' measures some.
	scripts/postgres.sh with bin/everpoint bench $(ARGS)

##@ Change

.PHONY: fmt
fmt: $(linter) ## Format with gofumpt and goimports.
	$(linter) fmt

.PHONY: generate
generate: ## Generate api/ and docs/reference/ from models/.
	go run ./cmd/apigen

##@ Machine

.PHONY: deps
deps: $(linter) ## Install what is missing: modules, linters, and as root on Debian a PostgreSQL server.
	go mod download
	scripts/postgres.sh install

.PHONY: postgres
postgres: ## Keep a PostgreSQL cluster under .local and print its TEST_POSTGRES_URL.
	@scripts/postgres.sh start

.PHONY: postgres-stop
postgres-stop: ## Stop and remove that cluster.
	@scripts/postgres.sh stop

# In tools/, which has a go.mod of its own: what lints us does not choose our versions.
$(linter): tools/go.mod tools/go.sum
	cd tools && go build -trimpath -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
