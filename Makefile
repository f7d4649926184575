.DEFAULT_GOAL := help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 30s
ROUNDS ?= 10000
ORACLE_SECONDS ?= 600
SOAK_MINUTES ?= 30
CHAOS_SECONDS ?= 60

# Modules with requirements of their own, tested all the same.
NESTED := $(patsubst ./%/go.mod,%,$(shell find . -mindepth 2 -name go.mod))
# Packages whose tests count allocations, to which the race detector adds its own.
COUNTED := . ./routing ./driver/emulate ./drivers/mem ./internal/acceptance
WITH_BROKERS := go run ./internal/testbroker/cmd/brokers

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: brokers
brokers: ## Install the brokers that are missing (RabbitMQ, NATS, Redis); starts nothing
	@internal/testbroker/install.sh

.PHONY: test
test: brokers ## Every test of every module with the race detector, on real brokers
	@$(WITH_BROKERS) sh -ec 'for m in $(NESTED); do (cd $$m && go vet ./... && go test -race -timeout 10m ./...); done; go test -race -p 2 -timeout 20m ./...; go test -run "Alloc|Spares" $(COUNTED)'

.PHONY: test-matrix
test-matrix: brokers ## The suite and the oracle on older and newer brokers, MATRIX='redis-8 nats' of them; writes docs/MATRIX.md
	go run ./internal/testbroker/cmd/matrix $(MATRIX)

.PHONY: test-clusters
test-clusters: brokers ## The suite on clusters of three RabbitMQ and NATS nodes, about ten minutes (those of Redis are part of test)
	go test -race -tags clusters -run 'TestConformanceOfCluster$$' -count=1 -v -timeout 30m ./drivers/amqp ./drivers/nats

.PHONY: short
short: ## The tests that need nothing but Go
	go test -short ./...

.PHONY: lint
lint: ## gofmt, go vet (also as for Windows and macOS) and staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet -tags clusters ./...
	GOOS=windows go vet ./...
	GOOS=darwin go vet ./...
	@for m in . $(NESTED); do (cd $$m && go run $(STATICCHECK) ./...) || exit 1; done

.PHONY: inforce
inforce: brokers ## Promise 9: ROUNDS=10000 random schedules, and as many between two processes on every backend
	env POLYMQ_INFORCE_SCHEDULES=$(ROUNDS) go test -run 'TestInForce$$' -count=1 -v -timeout 60m ./driver/emulate/
	$(WITH_BROKERS) env POLYMQ_INFORCE_ROUNDS=$(ROUNDS) go test -run 'TestInForce' -count=1 -v -timeout 60m ./internal/acceptance/

.PHONY: oracle
oracle: brokers ## Random scripts on RabbitMQ and every driver, compared for ORACLE_SECONDS=600
	$(WITH_BROKERS) env ORACLE_SECONDS=$(ORACLE_SECONDS) go test -race -run 'TestOracle$$' -count=1 -v -timeout 0 ./internal/oracle/

.PHONY: soak
soak: brokers ## A steady load on every backend for SOAK_MINUTES=30: does anything grow? Writes docs/soak.csv and docs/soak.svg
	go run ./internal/soak -minutes $(SOAK_MINUTES) -commit "$$(git rev-parse --short HEAD)"

.PHONY: chaos
chaos: brokers ## The fault run: CHAOS_SECONDS=60 on each backend, CHAOS='amqp nats-cluster' of them, CHAOS_SEED repeats
	CHAOS='$(CHAOS)' CHAOS_SECONDS=$(CHAOS_SECONDS) CHAOS_SEED=$(CHAOS_SEED) go test -race -run 'TestChaos$$' -count=1 -v -timeout 0 ./internal/chaos/

.PHONY: bench
bench: brokers ## polymq beside raw clients and peers, BENCH='consume/redis' of it; writes docs/BENCHMARKS.md
	cd bench && go run ./compare -run '$(BENCH)'

.PHONY: bench-growth
bench-growth: brokers ## How polymq grows with queues, bindings, publishers; BENCH='queues/redis' of it
	cd bench && go run ./compare -run 'growth/$(BENCH)'

.PHONY: fuzz
fuzz: ## Every fuzz test, FUZZTIME=30s each
	@for p in $$(go list ./...); do \
		for f in $$(go test -short -list '^Fuzz' $$p | grep '^Fuzz'); do \
			go test -short -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
		done; \
	done
