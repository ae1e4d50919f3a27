#!/usr/bin/env bash
# Makes a tree of Debian trixie for hosts of that release (make test-trixie), in
# VIRTFIREWALLD_TRIXIE or /var/lib/virtfirewalld-tests/trixie: about 400 MB. Does
# nothing when the tree has all that tests/setup.sh --hosts lists. With --path it
# only prints where the tree is.
set -euo pipefail

tree=${VIRTFIREWALLD_TRIXIE:-/var/lib/virtfirewalld-tests/trixie}
if [[ ${1:-} == --path ]]; then
	echo "$tree"
	exit 0
fi
if ((EUID != 0)); then
	echo "trixie: making $tree needs root; run this as root" >&2
	exit 1
fi

mapfile -t packages < <("$(dirname "${BASH_SOURCE[0]}")/setup.sh" --hosts)
# Beyond what a machine that runs the tests has by itself.
packages+=(systemd-sysv libpam-systemd iputils-ping kmod)
stamp=packages # in the tree's root: written last
building=$tree.building

complete() {
	[[ -e $tree/$stamp ]] && [[ -z $(comm -23 <(printf '%s\n' "${packages[@]}" | sort -u) "$tree/$stamp") ]]
}

# source_of prints the URI that the machine has for one of its own suites, so
# that a configured mirror is used here too.
source_of() {
	local codename
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk -v release="$codename$1" '$1 == release { print $2; exit }'
}

# build runs as pid 1 of its own namespaces: mounts and processes in the tree end
# with it, however it ends.
build() {
	trap 'exit 130' INT
	trap 'exit 143' TERM
	mount -t proc proc /proc
	local uri security keyring=/usr/share/keyrings/debian-archive-keyring.gpg file
	uri=$(source_of '') security=$(source_of -security)
	uri=${uri:-http://deb.debian.org/debian} security=${security:-http://deb.debian.org/debian-security}
	local extra=()
	if [[ $uri$security == *https:* ]]; then
		extra=(--include=ca-certificates)
	fi
	debootstrap --variant=minbase --keyring="$keyring" "${extra[@]}" trixie "$building" "$uri"

	cp /etc/resolv.conf "$building/etc/resolv.conf"
	# Proxies, time-outs and the like. What is set for the machine's own programs,
	# such as docker's clean-up, stays there.
	for file in $(grep -lsE '^[[:space:]]*Acquire' /etc/apt/apt.conf.d/* /etc/apt/apt.conf || true); do
		cp "$file" "$building/etc/apt/apt.conf.d/"
	done
	rm -f "$building/etc/apt/sources.list"
	printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
		"$uri" 'trixie trixie-updates' "$keyring" "$security" trixie-security "$keyring" \
		>"$building/etc/apt/sources.list.d/debian.sources"
	printf 'path-exclude=/usr/share/%s\n' 'doc/*' 'man/*' 'info/*' 'locale/*' >"$building/etc/dpkg/dpkg.cfg.d/tests"
	echo force-unsafe-io >>"$building/etc/dpkg/dpkg.cfg.d/tests"
	printf '#!/bin/sh\nexit 101\n' >"$building/usr/sbin/policy-rc.d"
	chmod 0755 "$building/usr/sbin/policy-rc.d"

	# Some packages, such as polkitd, cannot be set up without these.
	mount -t proc proc "$building/proc"
	mount -t sysfs -o ro sysfs "$building/sys"
	mount --rbind /dev "$building/dev"
	local apt=(env -i PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
		http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" chroot "$building" apt-get -q)
	"${apt[@]}" update
	"${apt[@]}" install -y --no-install-recommends "${packages[@]}"
	"${apt[@]}" clean
	rm -rf "$building"/var/lib/apt/lists/* "$building/usr/sbin/policy-rc.d"
}
if [[ ${1:-} == --build ]]; then
	build
	exit 0
fi

mkdir -p "$(dirname "$tree")"
exec 9>"$tree.lock"
flock 9 # another run may be building it
if complete; then
	exit 0
fi
pid=
end() {
	if [[ -n $pid ]]; then
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	fi
	rm -rf "$building" "$building.log"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$building" # left behind by a run that was killed
echo "trixie: building $tree, which takes a minute or two"
began=$SECONDS
# Should this script be killed, the build ends too, and holds the lock until then.
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private \
	"${BASH_SOURCE[0]}" --build >"$building.log" 2>&1 </dev/null &
pid=$!
if ! wait "$pid"; then
	pid=
	tail -n 40 "$building.log" >&2
	echo "trixie: building $tree failed; its last output is above" >&2
	exit 1
fi
pid=
printf '%s\n' "${packages[@]}" | sort -u >"$building/$stamp"
rm -rf "$tree" # hosts over the old one would not outlive a change under them either
mv -T "$building" "$tree"
echo "trixie: done after $((SECONDS - began)) s"
