# `make demo` and `make test` do everything on a fresh Debian 12 or Ubuntu machine that has Rust, as root or with sudo.

# The CPU that the programs are built for. The oldest level of x86-64 that has this machine's vector instructions runs
# on every other machine of that level as well; TARGET_CPU=native takes this very CPU's, and runs nowhere else.
# llama.cpp's Arm kernels are chosen by the CPU, not by a level, so there `native` is the default.
LEVEL = $(shell awk '/^flags/ { for (i = 3; i <= NF; i++) has[$$i] = 1; \
  v2 = has["ssse3"] && has["sse4_2"] && has["popcnt"] && has["cx16"]; \
  v3 = v2 && has["avx2"] && has["bmi1"] && has["bmi2"] && has["fma"] && has["f16c"] && has["movbe"] && has["abm"]; \
  print v3 ? "x86-64-v3" : v2 ? "x86-64-v2" : "x86-64"; exit }' /proc/cpuinfo)
TARGET_CPU ?= $(if $(filter x86_64,$(shell uname -m)),$(LEVEL),native)

# Features of Cargo.toml for `make build`.
FEATURES ?=
ifneq ($(filter cpu-variants,$(FEATURES)),)
# CMake remembers the path, and the next build may be another checkout's: a copy beside what is built of it.
VARIANTS = $(CARGO_TARGET_DIR)/cpu-variants
export CMAKE_PROJECT_ggml_INCLUDE = $(VARIANTS)/ggml.cmake
# Libraries as rustc makes programs: nothing that is called can be replaced once they are loaded.
export CMAKE_SHARED_LINKER_FLAGS := -Wl,-z,relro,-z,now
export CMAKE_MODULE_LINKER_FLAGS := $(CMAKE_SHARED_LINKER_FLAGS)
endif

# Another architecture to build for, by Debian's name, with Debian's compilers for it: see `make packages`.
CROSS ?=
RUST_arm64 := aarch64-unknown-linux-gnu
GNU_arm64 := aarch64-linux-gnu
RUST := $(RUST_$(CROSS))
GNU := $(GNU_$(CROSS))
ifneq ($(CROSS),)
export CARGO_BUILD_TARGET := $(RUST)
export BINDGEN_EXTRA_CLANG_ARGS := -isystem /usr/$(GNU)/include
CROSS_PACKAGES := gcc-$(GNU) g++-$(GNU) qemu-user-static
# What is built writes its manual pages itself.
EMULATOR := qemu-$(firstword $(subst -, ,$(GNU)))-static -L /usr/$(GNU)
endif

# The build lives outside the checkout, so that a fresh clone need not build llama.cpp again.
SUFFIX := $(TARGET_CPU)$(if $(filter native,$(TARGET_CPU)),-$(shell grep -m1 -E '^(flags|Features)' /proc/cpuinfo | cksum | cut -d' ' -f1))
TARGET = .cache/gemmad/target-$(SUFFIX)
# `sudo make install` installs what the user has built, whose home is another than root's.
USERS_HOME := $(if $(filter install,$(MAKECMDGOALS)),$(if $(SUDO_USER),$(if $(wildcard $(HOME)/$(TARGET)/release/gemmad-worker),,$(shell getent passwd '$(SUDO_USER)' | cut -d: -f6))))
export CARGO_TARGET_DIR ?= $(or $(USERS_HOME),$(HOME))/$(TARGET)
# What a crash prints names the source file, never the folders of the machine that built it.
CRATES := $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src
PREFIX_MAPS := -ffile-prefix-map=$(CRATES)=crates -ffile-prefix-map=$(CARGO_TARGET_DIR)=build
export CFLAGS := $(PREFIX_MAPS)
export CXXFLAGS := $(PREFIX_MAPS)
export RUSTFLAGS := $(addprefix -C target-cpu=,$(TARGET_CPU)) $(if $(CROSS),-C linker=$(GNU)-gcc) --remap-path-prefix=$(CRATES)=crates --remap-path-prefix=$(CARGO_TARGET_DIR)=build
BIN := $(CARGO_TARGET_DIR)/$(addsuffix /,$(RUST))release
# Named by what it holds: a fresh clone finds it again.
VENV := $(HOME)/.cache/gemmad/venv-$(shell cksum < tests/clients/requirements.txt | cut -d' ' -f1)
NODE := $(HOME)/.cache/gemmad/node-$(shell cksum < tests/clients/package-lock.json | cut -d' ' -f1)
# Coding agents: 700 MB to fetch, 2 GB of disk. aider is not made for each Python.
AGENTS := $(HOME)/.cache/gemmad/agents-$(shell cksum < tests/agents/package-lock.json | cut -d' ' -f1)
AIDER := $(if $(shell python3 -c 'import sys; print("yes" if (3, 10) <= sys.version_info < (3, 13) else "")'),$(HOME)/.cache/gemmad/venv-$(shell cksum < tests/agents/requirements.txt | cut -d' ' -f1))
TRAINER := models/tiny/trainer
TRAINER_VENV := $(HOME)/.cache/gemmad/venv-$(shell cksum < $(TRAINER)/requirements.txt | cut -d' ' -f1)

# A compiler, CMake and libclang for llama.cpp and its binding; Python, curl and openssl for the tests with real clients
# and servers; systemd's tools for the tests of the service, a message bus and GLib's client of it.
PACKAGES := build-essential cmake clang libclang-dev python3 python3-venv curl openssl systemd dbus libglib2.0-bin polkitd
# Whole machines for the tests: a root file system of the distribution's packages, and an emulator.
VM_PACKAGES := mmdebstrap debian-archive-keyring qemu-system-x86 e2fsprogs dpkg-dev debhelper
# What makes a Debian package, and what judges it.
DEB_PACKAGES := dpkg-dev debhelper lintian
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What makes packages of other distributions.
RPM_PACKAGES := rpm
ARCH_PACKAGES := makepkg pacman-package-manager libarchive-tools fakeroot zstd dpkg-dev
# Where `make install` puts what `make build` made. DESTDIR is put in front, and STRIP takes the symbols out, for packages.
DESTDIR ?=
STRIP ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
# Each file, what it is made of, and its mode. Those of systemd/ name the directory of the programs.
UNITS := $(PREFIX)/lib/systemd
# Beside /etc, the system bus reads policies below /usr only.
BUS_POLICY := $(if $(filter /usr,$(PREFIX)),/usr/share,$(SYSCONFDIR))/dbus-1/system.d
# Where every version of polkit reads them.
POLKIT_ACTIONS := /usr/share/polkit-1/actions
# The feature cpu-variants has libraries; they are the worker's own.
LIBRARIES = $(if $(shell grep -qs '[$$]ORIGIN/../lib/gemmad' $(BIN)/gemmad-worker && echo yes),$(wildcard $(BIN)/../lib/gemmad/*.so*))
INSTALLED = \
  $(foreach library,$(LIBRARIES),$(library):$(PREFIX)/lib/gemmad/$(notdir $(library)):644) \
  $(BIN)/gemmad:$(PREFIX)/bin/gemmad:755 \
  $(BIN)/gemmad-worker:$(PREFIX)/bin/gemmad-worker:755 \
  $(BIN)/gemmactl:$(PREFIX)/bin/gemmactl:755 \
  $(BIN)/gemmad-gateway:$(PREFIX)/bin/gemmad-gateway:755 \
  systemd/gemmad.service:$(UNITS)/system/gemmad.service:644 \
  systemd/gemmad.socket:$(UNITS)/system/gemmad.socket:644 \
  systemd/gemmad-pull.socket:$(UNITS)/system/gemmad-pull.socket:644 \
  systemd/gemmad-pull@.service:$(UNITS)/system/gemmad-pull@.service:644 \
  systemd/gemmad-relay@.service:$(UNITS)/system/gemmad-relay@.service:644 \
  systemd/gemmad-relay.socket:$(UNITS)/system/gemmad-relay.socket:644 \
  systemd/gemmad-gateway.socket:$(UNITS)/system/gemmad-gateway.socket:644 \
  systemd/gemmad-gateway.service:$(UNITS)/system/gemmad-gateway.service:644 \
  systemd/gemmad-app@.socket:$(UNITS)/system/gemmad-app@.socket:644 \
  systemd/user/gemmad-app@.socket:$(UNITS)/user/gemmad-app@.socket:644 \
  systemd/user/gemmad-pull.socket:$(UNITS)/user/gemmad-pull.socket:644 \
  systemd/user/gemmad-pull@.service:$(UNITS)/user/gemmad-pull@.service:644 \
  systemd/user/gemmad-relay@.service:$(UNITS)/user/gemmad-relay@.service:644 \
  systemd/user/gemmad-relay.socket:$(UNITS)/user/gemmad-relay.socket:644 \
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
  systemd/gateway.toml:$(PREFIX)/share/doc/gemmad/gateway.toml:644 \
  systemd/gemmad-fetch.conf:$(PREFIX)/share/doc/gemmad/gemmad-fetch.conf:644 \
  $(foreach page,README.md SECURITY.md LICENSE $(wildcard docs/*.md docs/*.txt docs/clients/*.* docs/clients/dbus/*),$(page):$(PREFIX)/share/doc/gemmad/$(page):644)
CONFIG := $(SYSCONFDIR)/gemmad/gemmad.toml
# What gemmactl writes: manual pages, each into the directory of its section, and where each shell looks for completions.
MAN := $(PREFIX)/share/man
PAGES = $(DESTDIR)$(MAN)/man1/gemmactl*.1 $(DESTDIR)$(MAN)/man5/gemmad.toml.5 $(DESTDIR)$(MAN)/man8/gemmad.8 $(DESTDIR)$(MAN)/man8/gemmad-gateway.8
COMPLETIONS := \
  bash:$(PREFIX)/share/bash-completion/completions/gemmactl \
  zsh:$(PREFIX)/share/zsh/site-functions/_gemmactl \
  fish:$(PREFIX)/share/fish/vendor_completions.d/gemmactl.fish
# By which the bus has systemd start the daemon.
ALIASES := $(UNITS)/system/dbus-org.gemmad.Gemmad1.service $(UNITS)/user/dbus-org.gemmad.Gemmad1.service

.PHONY: help build install uninstall packages programs emulated deb rpm arch setup checkout demo test vm-test boot bench deny fuzz miri asan licences tiny-family clean env

help:
	@echo 'make demo    build, start the daemon in a private directory, ask it something'
	@echo 'make test    everything CI runs: format, clippy, unit, integration, clients, docs'
	@echo 'make build   the four programs, in $(BIN)'
	@echo 'make install, make uninstall   programs, units, manual pages, completions under PREFIX ($(PREFIX)); DESTDIR for packages'
	@echo 'make packages   a Debian package for every machine of this architecture, or of ARCH=arm64; FORMATS="deb rpm arch" (see docs/packages.md)'
	@echo 'make emulated   the tiny models on emulated CPUs, with the programs of `make packages`, also with ARCH=arm64'
	@echo 'make agents  try coding agents against the tiny model (700 MB of packages)'
	@echo 'make vm-test   boot Debian in a virtual machine with the programs in it (MACHINES=all for every kind)'
	@echo 'make bench   measure the daemon (see docs/measuring.md)'
	@echo 'make licences   write docs/third-party-licences.txt anew'
	@echo 'make deny    licences, sources and known weaknesses of all dependencies (cargo-deny; needs the internet)'
	@echo 'make fuzz    run each fuzz target for two minutes (FUZZ_SECONDS=600, FUZZ="gguf model")'
	@echo 'make miri    look for undefined behaviour with Miri (needs a nightly compiler)'
	@echo 'make asan    have the tiny models answer with AddressSanitizer in worker and llama.cpp (builds it: 20 minutes)'
	@echo 'make tiny-family   train the tiny models of the tests anew: hours (see models/tiny/README.md)'

# $(1): Debian packages. Those that are missing are installed; other distributions name them otherwise.
install_packages = command -v apt-get >/dev/null || { echo 'needed, by the names of Debian: $(1)'; exit 0; }; missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
  [ -z "$$missing" ] || { echo "installing" $$missing; \
  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }

setup:
	@$(call install_packages,$(PACKAGES) $(CROSS_PACKAGES))
	@command -v cargo >/dev/null || { echo 'Rust is missing: install it from https://rustup.rs or with your distribution (1.92 or newer)' >&2; exit 1; }
	@$(if $(CROSS),[ -e "$$(rustc --print target-libdir --target $(RUST))" ] || rustup target add $(RUST) || \
	  { echo "Rust's standard library for $(RUST) is missing: install it with rustup or with your distribution" >&2; exit 1; })

# Cargo takes two checkouts for one when they share a build directory, and goes by the files' times: after another
# checkout was built, this one's files must look new.
checkout:
	@[ "$$(cat $(CARGO_TARGET_DIR)/checkout 2>/dev/null)" = '$(CURDIR)' ] || { find src tests -name '*.rs' -exec touch {} +; \
	mkdir -p $(CARGO_TARGET_DIR); echo '$(CURDIR)' > $(CARGO_TARGET_DIR)/checkout; }

# For cargo by hand: eval "$(make -s env)"
env:
	@echo "export CARGO_TARGET_DIR='$(CARGO_TARGET_DIR)' RUSTFLAGS='$(RUSTFLAGS)' CFLAGS='$(CFLAGS)' CXXFLAGS='$(CXXFLAGS)'"

# llama-cpp-sys-2 is not built anew by itself when the variants change.
build: setup checkout
	@$(if $(VARIANTS),diff -rq cross/cpu-variants $(VARIANTS) >/dev/null 2>&1 || \
	  { rm -rf $(VARIANTS) $(BIN)/build/llama-cpp-sys-2-* && cp -r cross/cpu-variants $(VARIANTS); })
	cargo build --release --locked --bins $(addprefix --features ,$(FEATURES))

# Builds nothing and installs no packages, so that it can run as root. A configuration that is there is left alone, here and by uninstall.
install:
	@[ -x $(BIN)/gemmad-worker ] || { echo 'nothing is built; run `make build` first' >&2; exit 1; }
	@set -e; $(foreach file,$(INSTALLED),$(call put,$(subst :, ,$(file))))
	@set -e; $(foreach alias,$(ALIASES),ln -sf gemmad.service $(DESTDIR)$(alias);)
	@[ -e $(DESTDIR)$(CONFIG) ] || install -Dm644 systemd/gemmad.toml $(DESTDIR)$(CONFIG)
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; $(EMULATOR) $(BIN)/gemmactl man "$$made/man"; \
	  for page in "$$made"/man/*; do install -Dm644 "$$page" "$(DESTDIR)$(MAN)/man$${page##*.}/$${page##*/}"; done; \
	  $(foreach shell,$(COMPLETIONS),$(call complete,$(subst :, ,$(shell))))
	@[ -n '$(DESTDIR)' ] || echo 'now: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl reload dbus && systemctl enable --now gemmad.socket'

# $(1): source, destination, mode.
put = sed_in='$(if $(filter systemd/%.service,$(word 1,$(1))),yes)'; \
  install $(if $(STRIP),$(if $(filter $(BIN)/%,$(word 1,$(1))),-s --strip-program=$(STRIP))) -Dm$(word 3,$(1)) $(word 1,$(1)) $(DESTDIR)$(word 2,$(1)); \
  [ -z "$$sed_in" ] || sed -i 's,@BINDIR@,$(PREFIX)/bin,' $(DESTDIR)$(word 2,$(1));

# $(1): shell, destination.
complete = $(EMULATOR) $(BIN)/gemmactl completions $(word 1,$(1)) > "$$made/completions"; \
  install -Dm644 "$$made/completions" $(DESTDIR)$(word 2,$(1));

# With DESTDIR, or where systemd does not run, there is nothing to stop.
RUNS := $(if $(DESTDIR),,$(wildcard /run/systemd/system))
uninstall:
	@$(if $(RUNS),systemctl disable --quiet --now gemmad.socket gemmad.service gemmad-pull.socket gemmad-relay.socket gemmad-gateway.socket gemmad-gateway.service "gemmad-app@*.socket" || true)
	@rm -f $(foreach file,$(INSTALLED),$(DESTDIR)$(word 2,$(subst :, ,$(file)))) $(addprefix $(DESTDIR),$(ALIASES)) \
	  $(PAGES) $(foreach shell,$(COMPLETIONS),$(DESTDIR)$(word 2,$(subst :, ,$(shell)))) $(DESTDIR)$(PREFIX)/lib/gemmad/*.so*
	@rmdir --ignore-fail-on-non-empty $(DESTDIR)$(PREFIX)/lib/gemmad 2>/dev/null || true
	@cd $(DESTDIR)$(PREFIX)/share/doc && rmdir -p --ignore-fail-on-non-empty gemmad/docs/clients/dbus
	@$(if $(RUNS),systemctl daemon-reload && systemctl reload dbus)
	@echo 'models, packed weights, $(CONFIG) and the users gemmad and gemmad-gateway stay'

# Packages are for every machine of an architecture, so they are built apart, for its oldest CPU; the kernels, of which
# each CPU has its own, are in libraries.
OWN_ARCH = $(or $(shell dpkg --print-architecture 2>/dev/null),$(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m))))
ARCH ?= $(OWN_ARCH)
OLDEST_CPU_amd64 := x86-64
# What compilers take by themselves, as it has no name that all of them know: Armv8.0.
OLDEST_CPU_arm64 :=
PACKAGES_TARGET ?= $(HOME)/.cache/gemmad/target-$(or $(OLDEST_CPU_$(ARCH)),$(ARCH))
FOR_ARCH = TARGET_CPU=$(OLDEST_CPU_$(ARCH)) CROSS=$(filter-out $(OWN_ARCH),$(ARCH)) CARGO_TARGET_DIR=$(PACKAGES_TARGET)
# Of deb, rpm and arch.
FORMATS ?= deb
packages: programs
	@$(MAKE) --no-print-directory $(FOR_ARCH) $(FORMATS)

programs:
	@case '$(ARCH)' in amd64 | arm64) exit 0;; esac; echo 'packages are made for ARCH=amd64 and ARCH=arm64, not for $(ARCH): docs/packages.md says why' >&2; exit 1
	@[ '$(ARCH)' = arm64 ] || [ '$(OWN_ARCH)' = '$(ARCH)' ] || { echo 'a package for $(ARCH) is made on a machine of that architecture' >&2; exit 1; }
	@# The build script of llama-cpp-sys-2 puts links to its libraries there, and fails where one of a former build dangles.
	@! [ -d $(PACKAGES_TARGET) ] || find $(PACKAGES_TARGET) -name 'lib*.so*' -xtype l -delete
	@$(MAKE) --no-print-directory $(FOR_ARCH) FEATURES=cpu-variants build

# The tiny family on CPUs that are emulated, with the worker of `make packages`: which kernels it chooses, and that it
# answers as here. Minutes for each CPU; not a part of `make test`.
emulated: setup checkout
	@$(call install_packages,qemu-user-static)
	GEMMAD_EMULATED_WORKER=$(PACKAGES_TARGET)/$(addsuffix /,$(RUST_$(filter-out $(OWN_ARCH),$(ARCH))))release/gemmad-worker \
	  cargo test --release --locked --test family -- --ignored --nocapture

# The package of what is built, whatever CPU it is for. lintian finds nothing in it, and made again elsewhere it is the same.
DEBS := $(CARGO_TARGET_DIR)/packages
deb:
	@$(call install_packages,$(DEB_PACKAGES))
	@rm -f $(DEBS)/*.deb
	@CROSS=$(CROSS) cross/deb.sh $(BIN) $(DEBS)
	@lintian --allow-root --display-info --pedantic --display-experimental --fail-on error,warning,info,pedantic,experimental $(DEBS)/*.deb
	@again=$$(mktemp -d); trap 'rm -rf "$$again"' EXIT; CROSS=$(CROSS) TZ=Asia/Tokyo LC_ALL=C cross/deb.sh $(BIN) "$$again" >/dev/null; \
	  cmp $(DEBS)/*.deb "$$again"/*.deb

# The same for distributions with rpm and with pacman. An RPM made again elsewhere is the same.
rpm:
	@$(call install_packages,$(RPM_PACKAGES))
	@rm -f $(DEBS)/*.rpm
	@CROSS=$(CROSS) cross/rpm.sh $(BIN) $(DEBS)
	@again=$$(mktemp -d); trap 'rm -rf "$$again"' EXIT; CROSS=$(CROSS) TZ=Asia/Tokyo LC_ALL=C cross/rpm.sh $(BIN) "$$again" >/dev/null; \
	  cmp $(DEBS)/*.rpm "$$again"/*.rpm

arch:
	@$(call install_packages,$(ARCH_PACKAGES))
	@rm -f $(DEBS)/*.pkg.tar.zst
	@CROSS=$(CROSS) cross/arch.sh $(BIN) $(DEBS)

demo: build
	@tests/demo.sh $(BIN)

# One `cargo test` builds the programs as well. The clients' packages come from PyPI and npm, once. What a test could not
# do here it writes into a file, which is shown at the end; with GEMMAD_NO_SKIPS=1 that is a failure.
test: export GEMMAD_SKIPPED := $(CARGO_TARGET_DIR)/skipped
test: setup checkout $(VENV)/ready $(NODE)/ready
	@: > $(GEMMAD_SKIPPED)
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings
	@$(MAKE) --no-print-directory deny DENY_CHECKS='bans licenses sources'
	GEMMAD_PYTHON=$(VENV)/bin/python GEMMAD_NODE_MODULES=$(NODE)/node_modules cargo test --release --locked
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --release --locked --no-deps --document-private-items
	@$(MAKE) --no-print-directory boot
	@if [ -s $(GEMMAD_SKIPPED) ]; then echo 'not tested here:'; sort -u $(GEMMAD_SKIPPED); else echo 'nothing was skipped'; fi

# Debian in a virtual machine with the programs in it: MACHINES=all, or names of tests/vm/run.py; ONLY=a word of the promises.
vm-test: setup checkout
	cargo test --release --locked --no-run --test pressure --test packed
	@$(MAKE) --no-print-directory boot

# Their package has the programs of `make packages`, if these were built after the last change of the sources.
MACHINES ?= debian-12
PACKAGED = $(wildcard $(PACKAGES_TARGET)/release/gemmad-worker)
boot:
	@$(call install_packages,$(VM_PACKAGES)) || true
	@python3 tests/vm/run.py --programs $(BIN) $(if $(PACKAGED),$(if $(shell find src build.rs Cargo.toml Cargo.lock systemd models/*.toml cross/cpu-variants -newer $(PACKAGED) -print -quit),,--packaged $(PACKAGES_TARGET)/release)) \
	  $(addprefix --machine ,$(MACHINES)) $(addprefix --only ,$(ONLY)) || { status=$$?; \
	  [ $$status = 77 ] && [ -z '$(filter-out 0,$(GEMMAD_NO_SKIPS))' ] || exit $$status; }

# Coding agents as they are, against the tiny model. Not a part of `make test`: their packages are large.
.PHONY: agents
agents: setup checkout $(VENV)/ready $(AGENTS)/ready $(addsuffix /ready,$(AIDER))
	GEMMAD_PYTHON=$(VENV)/bin/python GEMMAD_AGENTS=$(AGENTS)/node_modules GEMMAD_AIDER=$(addsuffix /bin/aider,$(AIDER)) cargo test --release --locked --test agents -- --ignored

$(VENV)/ready: REQUIREMENTS := tests/clients/requirements.txt
$(AIDER)/ready: REQUIREMENTS := tests/agents/requirements.txt
$(TRAINER_VENV)/ready: REQUIREMENTS := $(TRAINER)/requirements.txt
$(sort $(VENV)/ready $(addsuffix /ready,$(AIDER)) $(TRAINER_VENV)/ready):
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

# The tool is built once, outside of the checkout. Its list of weaknesses comes from GitHub, so `make test` asks for the
# rest.
DENY := $(HOME)/.cache/gemmad/deny
deny: setup
	[ -x $(DENY)/bin/cargo-deny ] || env -u RUSTFLAGS CARGO_TARGET_DIR=$(DENY)/build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
	  CARGO_PROFILE_RELEASE_LTO=off cargo install --quiet --locked --root $(DENY) cargo-deny@0.20.2
	rm -rf $(DENY)/build
	$(DENY)/bin/cargo-deny --manifest-path Cargo.toml --config .ci/deny.toml check $(DENY_CHECKS)

# Long, and with other compilers than the build's: none of them is a part of `make test`.
FUZZER := $(HOME)/.cache/gemmad/fuzz
FUZZ_SECONDS ?= 120
fuzz: setup
	[ -x $(FUZZER)/bin/cargo-fuzz ] || env -u RUSTFLAGS CARGO_TARGET_DIR=$(FUZZER)/build cargo install --quiet --locked --root $(FUZZER) cargo-fuzz@0.13.2
	env -u RUSTFLAGS PATH="$(FUZZER)/bin:$$PATH" tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZER) $(FUZZ)

miri:
	env -u RUSTFLAGS tests/miri.sh $(HOME)/.cache/gemmad/miri

asan: setup
	python3 tests/asan.py $(HOME)/.cache/gemmad/asan

# After every change of Cargo.lock; the tests hold the two together.
licences:
	cargo fetch --quiet --locked
	python3 .ci/third-party-licences.py

# What is there already is not made again: see `python -m trainer --list`. PyTorch alone takes 5 GB of disk.
tiny-family: setup $(TRAINER_VENV)/ready
	cd models/tiny && $(TRAINER_VENV)/bin/python -m trainer

clean:
	rm -rf $(CARGO_TARGET_DIR) $(HOME)/.cache/gemmad/venv-* $(HOME)/.cache/gemmad/node-* $(HOME)/.cache/gemmad/agents-*
