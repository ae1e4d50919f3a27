# make build      bin/virtfirewalld and bin/virtfirewallctl, with their documents
# make demo       the main job in throw-away network namespaces; KEEP=1 leaves them up
# make test       every test, after installing what they need; as root
# make test-trixie  those that meet real daemons, with the ones of Debian trixie; as root
# make test-kernel  those that meet another kernel, on Debian's 6.1, in a virtual machine; as root;
#                 PACKETS=1 runs the core of the packet tests there as well
# make lint       gofmt, go vet, staticcheck
# make bench      the benchmarks, in less than ten minutes; as root
# make bench-idle the service at rest; make bench-libvirt: the real libvirt's times, beside
#                 firewalld too; as root
# make bench-path  what forwarding costs beside other rules, and the real libvirt's; as root
# make bench-instructions  what a forwarded packet takes Debian's kernel 6.1, in instructions,
#                 in a virtual machine; as root
# make install    PREFIX=/usr/local DESTDIR=; make uninstall takes it out again
# make packages   bin/packages/*.deb and *.rpm

GO ?= go
PREFIX ?= /usr/local
DESTDIR ?=

# Ours, under PREFIX.
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/virtfirewalld
BASHCOMPDIR ?= $(DATADIR)/bash-completion/completions
ZSHCOMPDIR ?= $(DATADIR)/zsh/site-functions
FISHCOMPDIR ?= $(DATADIR)/fish/vendor_completions.d
# Where the bus, polkit and systemd look, whatever PREFIX is.
DBUSPOLICYDIR ?= /usr/share/dbus-1/system.d
DBUSSERVICEDIR ?= /usr/share/dbus-1/system-services
DBUSINTERFACEDIR ?= /usr/share/dbus-1/interfaces
POLKITDIR ?= /usr/share/polkit-1/actions
UNITDIR ?= /usr/lib/systemd/system
TMPFILESDIR ?= /usr/lib/tmpfiles.d
# The administrator's, who may have changed what is there.
CONFDIR ?= /etc/virtfirewalld

NAME := org.virtfirewall.NetworkFirewall1
# A release is its tag; anything else says which commit it is, where git knows.
# The number of commits comes first, so that packages of two of them have an
# order.
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null | sed 's/^v//' | grep . || \
	{ commit=$$(git rev-parse --short HEAD 2>/dev/null) && \
	echo "0.1.0-dev.$$(git rev-list --count HEAD)+$$commit" || echo 0.1.0-dev; })
# What is built twice from one commit is the same to the bit.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y Makefile)
ARCH ?= $(shell $(GO) env GOARCH)
# The version is stamped here; go's own stamp fails where git distrusts the
# owner of the tree.
BUILD := CGO_ENABLED=0 GOARCH=$(ARCH) $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
# Integration tests wait for real daemons, which Go does not know of when it
# decides whether a result still holds: nothing is taken from its cache.
# They mostly wait, so that more of them than processors run at once: go test
# runs a package for each processor, and of each as many tests as this says.
TESTFLAGS ?= -timeout=30m -count=1 -parallel=2
say = @printf '==> %s\n'

# The steps of a target run in the order in which they stand there.
.NOTPARALLEL:

# What meets programs of a release: the rest of the tests is the same everywhere.
# They run without the race detector, which has seen this code in "make test", so
# that the daemon meets them at the speed that it has in the field.
RELEASE_TESTS := $(addprefix ./tests/,backends bus firewalld libvirt lifecycle neighbours packages packets polkit) ./zones \
	./service/host ./service/iptables ./service/neighbour ./service/nftables

.PHONY: all build demo test test-trixie test-kernel lint \
	bench bench-idle bench-instructions bench-libvirt bench-path setup install uninstall packages clean
all: build

build:
	$(say) 'building virtfirewalld and virtfirewallctl $(VERSION) into bin/'
	@mkdir -p bin
	@$(BUILD) -o bin/virtfirewalld ./cmd/virtfirewalld
	@$(BUILD) -o bin/virtfirewallctl ./cmd/virtfirewallctl
	$(say) 'writing the manual pages and the completions into bin/'
	@$(GO) run -buildvcs=false ./cmd/virtfirewallctl/gendoc '$(VERSION)' bin
	@touch bin/.built

# So that "sudo make install" after "make build" builds nothing as root.
bin/.built:
	@$(MAKE) --no-print-directory build

demo: setup build
	$(say) 'running the demo in network namespaces of its own'
	@$(GO) run -buildvcs=false ./tests/demo $(if $(KEEP),-keep)

setup:
	$(say) 'installing what the tests and the demo need (tests/setup.sh)'
	@tests/setup.sh

test: setup lint build
	$(say) 'running every test with the race detector'
	@CGO_ENABLED=1 $(GO) test -buildvcs=false -race $(TESTFLAGS) ./...

test-trixie: setup
	@tests/trixie.sh
	$(say) 'running the tests that meet real daemons in hosts of Debian trixie'
	@VIRTFIREWALLD_TEST_ROOT="$$(tests/trixie.sh --path)" \
		$(GO) test -buildvcs=false $(TESTFLAGS) $(RELEASE_TESTS)

test-kernel: setup
	$(say) 'getting another kernel (tests/kernel/setup.sh)'
	@tests/kernel/setup.sh
	$(say) 'running the core of the tests on that kernel'
	@$(GO) run -buildvcs=false ./tests/kernel $(if $(PACKETS),-packets)

lint:
	$(say) 'checking the format (gofmt)'
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .); \
		if [ -n "$$unformatted" ]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(say) 'looking for mistakes (go vet)'
	@$(GO) vet -tags modules ./...
	$(say) 'looking for more mistakes (staticcheck)'
	@$(GO) tool -modfile=tests/tools/go.mod staticcheck -tags modules ./...

bench: setup build
	$(say) 'running the benchmarks'
	@CGO_ENABLED=1 $(GO) test -buildvcs=false -run '^$$' -bench . -benchtime=200ms -benchmem ./...
	@$(GO) run -buildvcs=false ./tests/bench -o docs/benchmarks.md

# What needs minutes by itself.
bench-idle: setup build
	$(say) 'measuring the service at rest'
	@$(GO) run -buildvcs=false ./tests/bench -only '^idle$$' -o docs/benchmarks.md

bench-libvirt: setup build
	@tests/trixie.sh
	$(say) 'measuring the real libvirt'
	@$(GO) run -buildvcs=false ./tests/bench -only '^libvirt' -o docs/benchmarks.md

bench-path: setup build
	@tests/trixie.sh
	$(say) 'comparing what forwarding a packet costs'
	@$(GO) run -buildvcs=false ./tests/bench -only '^path$$' -o docs/benchmarks.md

bench-instructions: setup
	@tests/kernel/setup.sh
	$(say) 'counting the instructions of a forwarded packet'
	@$(GO) run -buildvcs=false ./tests/kernel -instructions

# each_file runs $(1) for every file that is installed, as a shell function of
# three arguments: mode, file here, file there. Installing and uninstalling
# share it, so what one puts there the other takes away.
define each_file
set -e; each() { $(1); }; \
each 0755 bin/virtfirewalld '$(SBINDIR)/virtfirewalld'; \
each 0755 bin/virtfirewallctl '$(BINDIR)/virtfirewallctl'; \
each 0644 systemd/virtfirewalld.service '$(UNITDIR)/virtfirewalld.service'; \
each 0644 systemd/virtfirewalld.tmpfiles.conf '$(TMPFILESDIR)/virtfirewalld.conf'; \
each 0644 dbus/$(NAME).conf '$(DBUSPOLICYDIR)/$(NAME).conf'; \
each 0644 dbus/$(NAME).service '$(DBUSSERVICEDIR)/$(NAME).service'; \
each 0644 dbus/$(NAME).xml '$(DBUSINTERFACEDIR)/$(NAME).xml'; \
each 0644 polkit/org.virtfirewall.networkfirewall1.policy '$(POLKITDIR)/org.virtfirewall.networkfirewall1.policy'; \
each 0644 polkit/50-virtfirewalld.rules '$(DOCDIR)/examples/50-virtfirewalld.rules'; \
each 0644 docs/network-metadata.rng '$(DATADIR)/virtfirewalld/network-metadata.rng'; \
for f in zones/firewalld/*/*.xml; do each 0644 "$$f" "$(DATADIR)/virtfirewalld/$${f#zones/}"; done; \
for f in bin/man/*; do each 0644 "$$f" "$(MANDIR)/man$${f##*.}/$${f##*/}"; done; \
for f in README.md docs/*.md; do each 0644 "$$f" "$(DOCDIR)/$${f##*/}"; done; \
for f in docs/examples/*; do each 0644 "$$f" "$(DOCDIR)/examples/$${f##*/}"; done; \
each 0644 bin/completions/virtfirewallctl.bash '$(BASHCOMPDIR)/virtfirewallctl'; \
each 0644 bin/completions/_virtfirewallctl '$(ZSHCOMPDIR)/_virtfirewallctl'; \
each 0644 bin/completions/virtfirewallctl.fish '$(FISHCOMPDIR)/virtfirewallctl.fish'
endef

install: bin/.built
	$(say) 'installing into $(DESTDIR)$(PREFIX), and for the bus, polkit and systemd into $(DESTDIR)/usr'
	@umask 022; $(call each_file,install -D -m "$$1" "$$2" "$(DESTDIR)$$3")
	@sed -i 's|@SBINDIR@|$(SBINDIR)|' '$(DESTDIR)$(UNITDIR)/virtfirewalld.service'
	@umask 022; mkdir -p '$(DESTDIR)$(CONFDIR)/networks'
	@test -e '$(DESTDIR)$(CONFDIR)/virtfirewalld.conf' || \
		install -m 0644 systemd/virtfirewalld.conf '$(DESTDIR)$(CONFDIR)/virtfirewalld.conf'
	$(say) 'next: systemctl daemon-reload && systemctl enable --now virtfirewalld'

uninstall: bin/.built
	$(say) 'removing what make install put there; networks and settings in $(CONFDIR) and the rules in the kernel stay'
	@$(call each_file,rm -f "$(DESTDIR)$$3")
	@cmp -s systemd/virtfirewalld.conf '$(DESTDIR)$(CONFDIR)/virtfirewalld.conf' && \
		rm '$(DESTDIR)$(CONFDIR)/virtfirewalld.conf' || true
	@for d in '$(CONFDIR)/networks' '$(CONFDIR)' '$(DOCDIR)/examples' '$(DOCDIR)'; do \
		rmdir '$(DESTDIR)'"$$d" 2>/dev/null || true; done
	@for d in firewalld/zones firewalld/policies firewalld .; do \
		rmdir '$(DESTDIR)$(DATADIR)/virtfirewalld/'"$$d" 2>/dev/null || true; done
	@rmdir '$(DESTDIR)$(DATADIR)/virtfirewalld' 2>/dev/null || true

# A version as packages order them: what follows a tag is newer than it, what
# leads to one is older.
PACKAGE_VERSION = $(shell echo '$(VERSION)' | sed -E 's/-dirty$$/+dirty/; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/; s/-/~/; s/-/./g')
# Who answers for the packages; whoever builds them for others says so here.
MAINTAINER ?= virtfirewalld developers <packages@virtfirewall.org>
NFPM = ARCH=$(ARCH) PACKAGE_VERSION='$(PACKAGE_VERSION)' MAINTAINER='$(MAINTAINER)' \
	$(GO) tool -modfile=tests/tools/go.mod nfpm package --config systemd/package/nfpm.yaml --target bin/packages
STAGE := bin/packages/stage

# The packages hold what make install puts into a stage, and what is theirs
# alone: licences, and a history for Debian.
packages: build
	@rm -rf bin/packages
	@$(MAKE) --no-print-directory install DESTDIR=$(STAGE)/deb PREFIX=/usr ZSHCOMPDIR=/usr/share/zsh/vendor-completions >/dev/null
	@$(MAKE) --no-print-directory install DESTDIR=$(STAGE)/rpm PREFIX=/usr >/dev/null
	@$(GO) run -buildvcs=false ./systemd/package/licences '$(PACKAGE_VERSION)' '$(MAINTAINER)' $(STAGE)
	@find $(STAGE)/*/usr/share/man -type f -exec gzip -9n {} +
	@chmod -R u=rwX,go=rX $(STAGE)
	@find $(STAGE) -exec touch -h -d @$(SOURCE_DATE_EPOCH) {} +
	$(say) 'packing virtfirewalld $(PACKAGE_VERSION) for $(ARCH) into bin/packages/'
	@$(NFPM) --packager deb
	@$(NFPM) --packager rpm
	@rm -rf $(STAGE)

clean:
	$(say) 'removing bin/'
	@rm -rf bin
