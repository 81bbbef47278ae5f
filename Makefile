# `make demo` and `make test` do everything on a fresh Debian 12 or Ubuntu machine that has Rust, as root or with sudo.

# The CPU that the programs are built for. The oldest level of x86-64 that has this machine's vector instructions runs
# on every other machine of that level as well; TARGET_CPU=native takes this very CPU's, and runs nowhere else.
# llama.cpp's Arm kernels are chosen by the CPU, not by a level, so there `native` is the default.
LEVEL = $(shell awk '/^flags/ { for (i = 3; i <= NF; i++) has[$$i] = 1; \
  v2 = has["ssse3"] && has["sse4_2"] && has["popcnt"] && has["cx16"]; \
  v3 = v2 && has["avx2"] && has["bmi1"] && has["bmi2"] && has["fma"] && has["f16c"] && has["movbe"] && has["abm"]; \
  print v3 ? "x86-64-v3" : v2 ? "x86-64-v2" : "x86-64"; exit }' /proc/cpuinfo)
TARGET_CPU ?= $(if $(filter x86_64,$(shell uname -m)),$(LEVEL),native)

# The build lives outside the checkout, so that a fresh clone need not build llama.cpp again.
SUFFIX := $(TARGET_CPU)$(if $(filter native,$(TARGET_CPU)),-$(shell grep -m1 -E '^(flags|Features)' /proc/cpuinfo | cksum | cut -d' ' -f1))
export CARGO_TARGET_DIR ?= $(HOME)/.cache/gemmad/target-$(SUFFIX)
# What a crash prints names the source file, never the folders of the machine that built it.
CRATES := $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src
PREFIX_MAPS := -ffile-prefix-map=$(CRATES)=crates -ffile-prefix-map=$(CARGO_TARGET_DIR)=build
export CFLAGS := $(PREFIX_MAPS)
export CXXFLAGS := $(PREFIX_MAPS)
export RUSTFLAGS := -C target-cpu=$(TARGET_CPU) --remap-path-prefix=$(CRATES)=crates --remap-path-prefix=$(CARGO_TARGET_DIR)=build
BIN := $(CARGO_TARGET_DIR)/release
# Named by what it holds: a fresh clone finds it again.
VENV := $(HOME)/.cache/gemmad/venv-$(shell cksum < tests/clients/requirements.txt | cut -d' ' -f1)
NODE := $(HOME)/.cache/gemmad/node-$(shell cksum < tests/clients/package-lock.json | cut -d' ' -f1)
# Coding agents: 360 MB to fetch, 840 MB of disk.
AGENTS := $(HOME)/.cache/gemmad/agents-$(shell cksum < tests/agents/package-lock.json | cut -d' ' -f1)
TRAINER := models/tiny/trainer
TRAINER_VENV := $(HOME)/.cache/gemmad/venv-$(shell cksum < $(TRAINER)/requirements.txt | cut -d' ' -f1)

# A compiler, CMake and libclang for llama.cpp and its binding; Python, curl and openssl for the tests with real clients and
# servers; systemd's
# tools for the tests of the service, a message bus and GLib's client of it.
PACKAGES := build-essential cmake clang libclang-dev python3 python3-venv curl openssl systemd dbus libglib2.0-bin polkitd
# Whole machines for the tests: a root file system of the distribution's packages, and an emulator.
VM_PACKAGES := mmdebstrap debian-archive-keyring qemu-system-x86 e2fsprogs
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Where `make install` puts what `make build` made. DESTDIR is put in front, for packages.
DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
# Each file, what it is made of, and its mode. Those of systemd/ name the directory of the programs.
UNITS := $(PREFIX)/lib/systemd
# Beside /etc, the system bus reads policies below /usr only.
BUS_POLICY := $(if $(filter /usr,$(PREFIX)),/usr/share,$(SYSCONFDIR))/dbus-1/system.d
# Where every version of polkit reads them.
POLKIT_ACTIONS := /usr/share/polkit-1/actions
INSTALLED := \
  $(BIN)/gemmad:$(PREFIX)/bin/gemmad:755 \
  $(BIN)/gemmad-worker:$(PREFIX)/bin/gemmad-worker:755 \
  $(BIN)/gemmactl:$(PREFIX)/bin/gemmactl:755 \
  systemd/gemmad.service:$(UNITS)/system/gemmad.service:644 \
  systemd/gemmad.socket:$(UNITS)/system/gemmad.socket:644 \
  systemd/user/gemmad.service:$(UNITS)/user/gemmad.service:644 \
  systemd/user/gemmad.socket:$(UNITS)/user/gemmad.socket:644 \
  systemd/dbus/org.gemmad.Gemmad1.conf:$(BUS_POLICY)/org.gemmad.Gemmad1.conf:644 \
  systemd/dbus/org.gemmad.Gemmad1.service:$(PREFIX)/share/dbus-1/system-services/org.gemmad.Gemmad1.service:644 \
  systemd/user/dbus/org.gemmad.Gemmad1.service:$(PREFIX)/share/dbus-1/services/org.gemmad.Gemmad1.service:644 \
  systemd/dbus/org.gemmad.Gemmad1.xml:$(PREFIX)/share/dbus-1/interfaces/org.gemmad.Gemmad1.xml:644 \
  systemd/dbus/org.gemmad.policy:$(POLKIT_ACTIONS)/org.gemmad.policy:644 \
  systemd/gemmad.sysusers.conf:$(PREFIX)/lib/sysusers.d/gemmad.conf:644 \
  systemd/gemmad.tmpfiles.conf:$(PREFIX)/lib/tmpfiles.d/gemmad.conf:644 \
  systemd/gemmad-memory.conf:$(PREFIX)/share/doc/gemmad/gemmad-memory.conf:644 \
  systemd/gemmad-fetch.conf:$(PREFIX)/share/doc/gemmad/gemmad-fetch.conf:644 \
  $(foreach page,README.md SECURITY.md $(wildcard docs/*.md docs/clients/*.* docs/clients/dbus/*),$(page):$(PREFIX)/share/doc/gemmad/$(page):644)
CONFIG := $(SYSCONFDIR)/gemmad/gemmad.toml
# By which the bus has systemd start the daemon.
ALIASES := $(UNITS)/system/dbus-org.gemmad.Gemmad1.service $(UNITS)/user/dbus-org.gemmad.Gemmad1.service

.PHONY: help build install uninstall setup checkout demo test vm-test boot bench deny tiny-family clean env

help:
	@echo 'make demo    build, start the daemon in a private directory, ask it something'
	@echo 'make test    everything CI runs: format, clippy, unit, integration, clients, docs'
	@echo 'make build   the three programs, in $(BIN)'
	@echo 'make install, make uninstall   programs, units, manual pages under PREFIX ($(PREFIX)); DESTDIR for packages'
	@echo 'make agents  try Codex CLI and Claude Code against the tiny model (360 MB of packages)'
	@echo 'make vm-test   boot Debian in a virtual machine with the programs in it (MACHINES=all for every kind)'
	@echo 'make bench   measure the daemon (see docs/measuring.md)'
	@echo 'make deny    licences, sources and known weaknesses of all dependencies (cargo-deny; needs the internet)'
	@echo 'make tiny-family   train the tiny models of the tests anew: hours (see models/tiny/README.md)'

# $(1): Debian packages. Those that are missing are installed.
install_packages = missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
  [ -z "$$missing" ] || { echo "installing" $$missing; \
  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }

setup:
	@$(call install_packages,$(PACKAGES))
	@command -v cargo >/dev/null || { echo 'Rust is missing: install it from https://rustup.rs or with your distribution (1.92 or newer)' >&2; exit 1; }

# Cargo takes two checkouts for one when they share a build directory, and goes by the files' times: after another
# checkout was built, this one's files must look new.
checkout:
	@[ "$$(cat $(CARGO_TARGET_DIR)/checkout 2>/dev/null)" = '$(CURDIR)' ] || { find src tests -name '*.rs' -exec touch {} +; \
	mkdir -p $(CARGO_TARGET_DIR); echo '$(CURDIR)' > $(CARGO_TARGET_DIR)/checkout; }

# For cargo by hand: eval "$(make -s env)"
env:
	@echo "export CARGO_TARGET_DIR='$(CARGO_TARGET_DIR)' RUSTFLAGS='$(RUSTFLAGS)' CFLAGS='$(CFLAGS)' CXXFLAGS='$(CXXFLAGS)'"

build: setup checkout
	cargo build --release --locked --bins

# Does not build, so that it can run as root. A configuration that is there is left alone, here and by uninstall.
install:
	@[ -x $(BIN)/gemmad-worker ] || { echo 'nothing is built; run `make build` first' >&2; exit 1; }
	@set -e; $(foreach file,$(INSTALLED),$(call put,$(subst :, ,$(file))))
	@set -e; $(foreach alias,$(ALIASES),ln -sf gemmad.service $(DESTDIR)$(alias);)
	@[ -e $(DESTDIR)$(CONFIG) ] || install -Dm644 systemd/gemmad.toml $(DESTDIR)$(CONFIG)
	@mkdir -p $(DESTDIR)$(PREFIX)/share/man/man1 && $(BIN)/gemmactl man $(DESTDIR)$(PREFIX)/share/man/man1
	@[ -n '$(DESTDIR)' ] || echo 'now: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl reload dbus && systemctl enable --now gemmad.socket'

# $(1): source, destination, mode.
put = sed_in='$(if $(filter systemd/%.service,$(word 1,$(1))),yes)'; \
  install -Dm$(word 3,$(1)) $(word 1,$(1)) $(DESTDIR)$(word 2,$(1)); \
  [ -z "$$sed_in" ] || sed -i 's,@BINDIR@,$(PREFIX)/bin,' $(DESTDIR)$(word 2,$(1));

# With DESTDIR, or where systemd does not run, there is nothing to stop.
RUNS := $(if $(DESTDIR),,$(wildcard /run/systemd/system))
uninstall:
	@$(if $(RUNS),systemctl disable --quiet --now gemmad.socket gemmad.service || true)
	@rm -f $(foreach file,$(INSTALLED),$(DESTDIR)$(word 2,$(subst :, ,$(file)))) $(addprefix $(DESTDIR),$(ALIASES)) \
	  $(DESTDIR)$(PREFIX)/share/man/man1/gemmactl*.1
	@cd $(DESTDIR)$(PREFIX)/share/doc && rmdir -p --ignore-fail-on-non-empty gemmad/docs/clients/dbus
	@$(if $(RUNS),systemctl daemon-reload && systemctl reload dbus)
	@echo 'models, packed weights, $(CONFIG) and the user gemmad stay'

demo: build
	@tests/demo.sh $(BIN)

# One `cargo test` builds the programs as well. The clients' packages come from PyPI and npm, once. What a test could not
# do here it writes into a file, which is shown at the end; with GEMMAD_NO_SKIPS=1 that is a failure.
test: export GEMMAD_SKIPPED := $(CARGO_TARGET_DIR)/skipped
test: setup checkout $(VENV)/ready $(NODE)/ready
	@: > $(GEMMAD_SKIPPED)
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings
	GEMMAD_PYTHON=$(VENV)/bin/python GEMMAD_NODE_MODULES=$(NODE)/node_modules cargo test --release --locked
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --release --locked --no-deps --document-private-items
	@$(MAKE) --no-print-directory boot
	@if [ -s $(GEMMAD_SKIPPED) ]; then echo 'not tested here:'; sort -u $(GEMMAD_SKIPPED); else echo 'nothing was skipped'; fi

# Debian in a virtual machine with the programs in it: MACHINES=all, or names of tests/vm/run.py; ONLY=a word of the promises.
vm-test: setup checkout
	cargo test --release --locked --no-run --test pressure --test packed
	@$(MAKE) --no-print-directory boot

MACHINES ?= debian-12
boot:
	@$(call install_packages,$(VM_PACKAGES)) || true
	@python3 tests/vm/run.py --programs $(BIN) $(addprefix --machine ,$(MACHINES)) $(addprefix --only ,$(ONLY)) || { status=$$?; \
	  [ $$status = 77 ] && [ -z '$(filter-out 0,$(GEMMAD_NO_SKIPS))' ] || exit $$status; }

# Coding agents as they are, against the tiny model. Not a part of `make test`: their packages are large.
.PHONY: agents
agents: setup checkout $(VENV)/ready $(AGENTS)/ready
	GEMMAD_PYTHON=$(VENV)/bin/python GEMMAD_AGENTS=$(AGENTS)/node_modules cargo test --release --locked --test agents -- --ignored

$(VENV)/ready: REQUIREMENTS := tests/clients/requirements.txt
$(TRAINER_VENV)/ready: REQUIREMENTS := $(TRAINER)/requirements.txt
$(VENV)/ready $(TRAINER_VENV)/ready:
	rm -rf $(@D) && python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	touch $@

# Node may be of another origin than the system's packages, and only the tests need it. Scripts of packages are not run:
# none needs any.
$(NODE)/ready: PACKAGE := tests/clients
$(AGENTS)/ready: PACKAGE := tests/agents
$(NODE)/ready $(AGENTS)/ready:
	command -v npm >/dev/null || { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; }
	rm -rf $(@D) && mkdir -p $(@D) && cp $(PACKAGE)/package.json $(PACKAGE)/package-lock.json $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

# With PEER=llama-server the tables of full-size files as well, which are made first: 17 GB, and half an hour.
bench: build
	python3 tests/bench/bench.py --gemmad $(BIN)/gemmad
	$(if $(PEER),python3 tests/bench/bench.py memory --gemmad $(BIN)/gemmad --peer $(PEER) --variant e2b)
	$(if $(PEER),python3 tests/bench/bench.py memory --gemmad $(BIN)/gemmad --peer $(PEER) --variant 26b-a4b --peer-options=--no-repack)

# The tool is built once, outside of the checkout. Its list of weaknesses comes from GitHub.
DENY := $(HOME)/.cache/gemmad/deny
deny: setup
	[ -x $(DENY)/bin/cargo-deny ] || env -u RUSTFLAGS CARGO_TARGET_DIR=$(DENY)/build cargo install --quiet --locked --root $(DENY) cargo-deny
	rm -rf $(DENY)/build
	$(DENY)/bin/cargo-deny --manifest-path Cargo.toml check --config .ci/deny.toml $(DENY_CHECKS)

# What is there already is not made again: see `python -m trainer --list`. PyTorch alone takes 5 GB of disk.
tiny-family: setup $(TRAINER_VENV)/ready
	cd models/tiny && $(TRAINER_VENV)/bin/python -m trainer

clean:
	rm -rf $(CARGO_TARGET_DIR) $(HOME)/.cache/gemmad/venv-* $(HOME)/.cache/gemmad/node-* $(HOME)/.cache/gemmad/agents-*
