#!/usr/bin/env bash
# Installs what building, the demo and the tests need on a Debian machine
# (bookworm or trixie) that has Go, and lists what it installs. Does nothing when
# all of it is present. Nothing that it installs is started. With --hosts it only lists
# what the throw-away hosts need in their tree.
set -euo pipefail

packages=(
	# what virtfirewalld works with
	nftables iptables conntrack iproute2 firewalld dnsmasq-base
	dbus dbus-daemon polkitd
	# what the throw-away hosts are made with
	util-linux mount procps
	# what the tests and the demo call
	systemd         # busctl, systemd-analyze
	libglib2.0-bin  # gdbus
	python3-dasbus python3-gi
	libvirt-daemon-system libvirt-clients # the real one, for comparison
	busybox udhcpc curl socat tcpdump libxml2-utils
	dbus-broker # the other system bus, in hosts that boot
	docker.io ufw # other tools that filter
)
if [[ ${1:-} == --hosts ]]; then
	printf '%s\n' "${packages[@]}"
	exit 0
fi
packages+=(
	gcc libc6-dev # go test -race
	debootstrap   # tests/trixie.sh
	# what packages, man pages and completions are checked with
	rpm man-db mandoc bash-completion zsh fish
)

declare -A installed
while read -r package status; do
	installed[$package]=$status
done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
	[[ ${installed[$package]:-} == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
	exit 0
fi

if ((EUID != 0)); then
	echo "setup: these Debian packages are missing: ${missing[*]}" >&2
	echo "setup: installing them needs root; run this as root" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "setup: this is not Debian; install what these packages hold: ${missing[*]}" >&2
	exit 1
fi

# firewalld, once started, would manage the machine's network, and libvirt would
# add a bridge and rules to it.
# An administrator's own policy stays in place, so it has to refuse by itself.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy && ! -L $policy ]]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 0755 "$policy"
fi

. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"
install_packages "${missing[@]}"

# Its package would start it with the next boot.
if [[ " ${missing[*]} " == *" firewalld "* ]] && command -v systemctl >/dev/null; then
	quietly systemctl disable firewalld
	echo "setup: firewalld.service is left disabled; the tests run their own"
fi
# Its package would replace dbus-daemon with it.
if [[ " ${missing[*]} " == *" dbus-broker "* ]] && command -v systemctl >/dev/null; then
	quietly systemctl disable dbus-broker
	quietly systemctl --global disable dbus-broker
	echo "setup: dbus-broker.service is left disabled; the tests run their own"
fi
if [[ " ${missing[*]} " == *" libvirt-daemon-system "* ]] && command -v systemctl >/dev/null; then
	# A socket would start it for the first client that asks. Releases differ in
	# which of these units they have.
	for unit in libvirtd.service libvirt-guests.service \
		{libvirtd,libvirtd-ro,libvirtd-admin,virtlockd,virtlockd-admin,virtlogd,virtlogd-admin}.socket; do
		if [[ -e /lib/systemd/system/$unit ]]; then
			quietly systemctl disable "$unit"
		fi
	done
	echo "setup: libvirtd is left disabled; the tests run their own"
fi
if [[ " ${missing[*]} " =~ " "(docker.io|ufw)" " ]] && command -v systemctl >/dev/null; then
	for unit in docker.service docker.socket containerd.service ufw.service; do
		if [[ -e /lib/systemd/system/$unit ]]; then
			quietly systemctl disable "$unit"
		fi
	done
	echo "setup: docker, containerd and ufw are left disabled; the tests run their own"
fi
echo "setup: done"
