# make prints the targets. Everything runs without network once the modules and
# tools are there; tools are pinned here and built into bin/tools.

GO            ?= go
GOLANGCI_LINT  = v2.15.0
GOFUMPT        = v0.12.0
TOOLS          = bin/tools
TIME          ?= 60s
ROUNDS        ?= 5
MINUTES       ?= 30
SESSIONS      ?= 2000
CLIENTS       ?= 15000
CONNECTED     ?= 10000
OFFLINE       ?= 50000
TRIES         ?= 1000
TENANTS       ?= 100000
CREDENTIALS   ?= 1000000
RUNS          ?= 3
REQUESTS      ?= 100000
SEED          ?= 1
BROKER        ?= 127.0.0.1:1883
NATS_SERVER    = v2.15.2
MOCHI          = v2.7.9
PEBBLE         = v2.10.1
# The packages that own goroutines: the race detector looks at these.
RACE           = ./infra/bus/... ./infra/kv/... ./infra/link/... ./infra/loop/... ./infra/node/... ./infra/wire/... ./gateway/... ./services/broker/... ./tenancy/...

.DEFAULT_GOAL := help
.PHONY: help build dev test conform mutate race fuzz lint arch check bench bench-peers bench-memory bench-overload bench-revocation bench-directory bench-logins bench-checks bench-routes sim sim-bugs crash storm chaos chaos-loss drain place grow chaos-netsplit chaos-tenancy chaos-away quotas-region api-random nightly generate deps fmt clean

help: ## print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## build every main into bin/
	$(GO) build -o bin/ ./services/cmd/...

dev: build ## start the whole product in one process, data in ./data
	bin/manor dev $(ARGS)

test: deps ## install what the tests need where that is possible, run every test
	$(GO) test ./...

conform: build ## hold the broker at BROKER (127.0.0.1:1883) to MQTT, with ARGS for manor conform
	bin/manor conform --broker $(BROKER) $(ARGS)

race: ## test the packages that own goroutines with the race detector
	$(GO) test -race -short -p 3 $(RACE)

fuzz: ## run every fuzz target for TIME (60s) each
	@GO=$(GO) .ci/fuzz $(TIME)

arch: ## hold the import order, link bans and file rules
	$(GO) test -count=1 ./infra/archtest

lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## lint and check the formatting
	$(TOOLS)/golangci-lint-$(GOLANGCI_LINT) run ./...

fmt: $(TOOLS)/gofumpt-$(GOFUMPT) ## format every Go file
	$(TOOLS)/gofumpt-$(GOFUMPT) -w infra tenancy gateway services

check: lint arch ## what every commit passes: lint, structure, short tests
	$(GO) vet ./...
	$(GO) test -short ./...

bench: build ## compare Manor with mosquitto, RUNS (3) interleaved runs; SAVE=1 keeps the table in docs/bench
	bin/manor bench compare -runs $(RUNS) $(if $(SAVE),-save docs/bench) $(ARGS)

bench-peers: build $(TOOLS)/nats-server $(TOOLS)/mochi ## compare every row with nats-server, mochi-mqtt and the floor too, RUNS (3) interleaved runs; SAVE=1 keeps the table
	bin/manor bench compare -peers mosquitto,nats,mochi,floor -tools $(TOOLS) -all -runs $(RUNS) $(if $(SAVE),-save docs/bench) $(ARGS)

bench-routes: ## what routes cost between three brokers: 100,000 added, a million that come and go
	MANOR_BENCH_ROUTES=1 $(GO) test -count=1 -v -timeout 30m -run 'TestManyRoutes|TestRoutesComeAndGo|TestLeftovers' ./services/broker/routes

bench-memory: build ## what brokers keep for SESSIONS (1,000,000) sessions, subscriptions and retained messages, alone and with followers
	bin/manor bench memory -sessions $(or $(SESSIONS),1000000) $(ARGS)

bench-overload: build ## what one tenant feels of another that sends 3 times what Manor and mosquitto sustain, RUNS (3) runs
	bin/manor bench overload -runs $(RUNS) $(ARGS)

bench-revocation: build ## how soon two gateways refuse what was revoked: TRIES (1,000) credentials, certificates, policies, plans, tenants
	bin/manor bench revocation -tries $(TRIES) $(ARGS)

bench-logins: build ## connects per second and core by method: password, JWT, SCRAM, X.509, RUNS (3) runs beside mosquitto
	bin/manor bench logins -runs $(RUNS) $(ARGS)

bench-checks: build ## what part of the CPU for each message authentication, authorisation and quotas have, RUNS (3) runs
	bin/manor bench checks -runs $(RUNS) $(ARGS)

bench-directory: build ## what TENANTS (100,000) with CREDENTIALS (1,000,000) cost: start of a gateway, memory, look-ups, sign-ups
	bin/manor bench directory -tenants $(TENANTS) -credentials $(CREDENTIALS) $(ARGS)

sim: ## run RUNS (200) simulated clusters, from SEED (1) on; ARGS=-print prints what happens in the first
	$(GO) test -count=1 -timeout 24h -run '^Test(Seeds|Sessions|Placed|Rough|Expiring)$$' -v ./services/sim -runs $(if $(filter command% environment%,$(origin RUNS)),$(RUNS),200) -seed $(SEED) $(ARGS)

sim-bugs: ## plant each bug of services/sim/testdata/bugs, and see that 500 seeds find it
	$(GO) test -count=1 -timeout 60m -run '^TestBugs$$' -v ./services/sim -all-bugs -bug-seeds 500

crash: build ## kill -9 the product ROUNDS (5) times under load and count what is missing
	$(GO) test -count=1 -timeout 120m -run '^TestCrash' -v ./services/conform -rounds $(ROUNDS)

storm: build ## kill the gateway of CLIENTS (15000) clients, and print how long all take to come back and at what cost
	$(GO) test -count=1 -timeout 20m -run '^TestStorm' -v ./services/conform -storm-clients $(CLIENTS)

chaos: ## damage a region of processes in network namespaces for MINUTES (30) under load: kill, wipe, cut off, restart; ARGS=-only=NATS takes some faults only
	$(GO) test -count=1 -timeout 24h -run '^TestChaos$$' -v ./services/conform/chaos -minutes $(MINUTES) $(ARGS)

chaos-loss: ## lose a broker and its disk for good with SESSIONS (2000) offline sessions of 100 messages each, and print how long their partitions are not served
	$(GO) test -count=1 -timeout 30m -run '^TestLoss$$' -v ./services/conform/chaos -sessions $(SESSIONS) $(ARGS)

drain: ## drain a broker of a region with CONNECTED (10000) clients and OFFLINE (50000) sessions, and print what they notice; take-overs between gateways too
	$(GO) test -count=1 -timeout 30m -run '^TestDrain$$' -v ./services/conform/chaos -connected $(CONNECTED) -offline $(OFFLINE) -pace 1s $(ARGS)

place: ## have a tenant go to other partitions PLACES (20) times while CONNECTED (80) clients are there, and print what they notice
	$(GO) test -count=1 -timeout 30m -run '^TestPlace$$' -v ./services/conform/chaos -places $(or $(PLACES),20) -connected $(if $(filter command% environment%,$(origin CONNECTED)),$(CONNECTED),80) $(ARGS)

grow: ## change a plan in a region of processes and kill the tenancyd that was asked; and, with MANY=10000, what clients notice of moves of as many sessions
	$(GO) test -count=1 -timeout 10m -run '^TestGrow$$' -v ./services/cmd/tenancyd -grow
	$(if $(MANY),$(GO) test -count=1 -timeout 10m -run '^TestRegion_PlacedMany$$' -v ./services/broker -many $(MANY) $(ARGS))

chaos-netsplit: ## cut brokers, and a gateway and a broker, apart, for a tenant that goes on in a netsplit and one that waits
	$(GO) test -count=1 -timeout 10m -run '^TestNetsplit$$' -v ./services/conform/chaos -netsplit $(ARGS)

chaos-tenancy: ## kill -9 ROUNDS (5) processes of the API and of NATS, three of each, in turn, while credentials are made: what was answered is at each of them; and the one that purges a tenant
	$(GO) test -count=1 -timeout 120m -run '^TestReplicas$$' -v ./services/cmd/tenancyd -rounds $(ROUNDS) $(ARGS)

chaos-away: ## kill -9, or stop, every process of the API and of NATS ROUNDS (5) times, and kill gateways and brokers meanwhile, while known clients publish and connect by each method
	$(GO) test -count=1 -timeout 120m -run '^TestControlPlaneGone$$' -v ./services/conform -away $(ROUNDS) $(ARGS)

quotas-region: ## hold the quotas of gateways and brokers on two gateways and three brokers as processes
	$(GO) test -count=1 -timeout 10m -run '^TestQuotas_Region$$' -v ./services/cmd/manor -region $(ARGS)

api-random: ## ask the API for REQUESTS (100000) random things from SEED (1) on, right ones and wrong ones, and hold the answers to docs/openapi.json
	$(GO) test -count=1 -timeout 24h -run '^TestRandomRequests$$' -v ./services/api -random-requests $(REQUESTS) -random-seed $(SEED) $(ARGS)

mutate: ## take out each check that cites a statement of MQTT, and see that the tests of its package notice
	$(GO) test -count=1 -timeout 60m -run '^TestMutate$$' -v ./services/conform/mutate -mutate $(ARGS)

nightly: ## what CI does at night: fuzz targets for 60 s, 100 crash rounds, a storm, half an hour of chaos, a broker lost for good, netsplits, quotas in a region, random requests to the API, every check taken out, simulated clusters, planted bugs
	$(MAKE) fuzz TIME=60s
	$(MAKE) crash ROUNDS=100
	$(MAKE) storm
	$(MAKE) chaos MINUTES=30
	$(MAKE) chaos-loss
	$(MAKE) chaos-netsplit
	$(MAKE) chaos-tenancy ROUNDS=50
	$(MAKE) grow
	$(MAKE) chaos-away ROUNDS=10
	$(MAKE) quotas-region
	$(MAKE) api-random SEED=0
	$(MAKE) mutate
	$(MAKE) sim RUNS=5000
	$(MAKE) sim-bugs

generate: build ## write docs/config.md, metrics.md, openapi.json, quotas.md and settings.md again
	@{ printf '# Configuration\n\nWritten by `make generate`. A flag wins over the environment, that over the file (`--config`), that over the default.\nAn unknown key is an error; `manor config check FILE` looks without starting.\nHow the sessions of a tenant behave is set through the API: settings.md has those, with VerneMQ'"'"'s names and defaults.\n'; \
	  for d in brokerd gatewayd tenancyd; do echo; bin/$$d config show; done; } > docs/config.md
	@bin/manor metrics > docs/metrics.md
	@$(GO) test -count=1 ./services/api -run TestOpenAPI -update >/dev/null

deps: ## install mosquitto, stunnel, Chromium, the MQTT.js modules and pebble, which some tests use, where possible
	@.ci/deps

clean: ## remove bin/
	rm -rf bin

$(TOOLS)/golangci-lint-$(GOLANGCI_LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	@mv $(TOOLS)/golangci-lint $@

$(TOOLS)/nats-server:
	@mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) $(GO) install github.com/nats-io/nats-server/v2@$(NATS_SERVER)

# An ACME server, for tests of custom domains.
$(TOOLS)/pebble:
	@mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) $(GO) install github.com/letsencrypt/pebble/v2/cmd/pebble@$(PEBBLE)

# mochi-mqtt's program is called cmd.
$(TOOLS)/mochi:
	@mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) $(GO) install github.com/mochi-mqtt/server/v2/cmd@$(MOCHI)
	@mv $(TOOLS)/cmd $@

$(TOOLS)/gofumpt-$(GOFUMPT):
	@mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) $(GO) install mvdan.cc/gofumpt@$(GOFUMPT)
	@mv $(TOOLS)/gofumpt $@
