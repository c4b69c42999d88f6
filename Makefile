# The two commands of a fresh machine are `make demo` and `make test`. CARGO_TARGET_DIR and PEERS (default .peers) are honoured.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench

help: ## this list
	@awk -F ': .*## ' '/^[a-z]+: .*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## build, run on loopback, show signed payloads come out as events; ONCE=1 for one round and an exit code
	@tests/peers/install.sh build
	cargo run --locked --quiet -- demo $(if $(ONCE),--once)

test: ## everything: installs the real peers once, runs the whole suite, prints the minutes of each part
	@scripts/test.sh

check: ## what is quick: format, clippy, unit tests, house rules
	@scripts/test.sh format clippy unit tidy

bench: ## the load harness: requests/s, latency, CPU and memory beside the bare handler
	@tests/peers/install.sh build
	cargo bench --locked --bench load
