#!/usr/bin/env bash
# Gets what `make test-kernel` needs: qemu, and Debian bookworm's own kernel,
# which is unpacked into a folder outside of the tree and never installed, so
# that the machine's boot is left alone. Does nothing when all is there.
#   VIRTFIREWALLD_TEST_KERNEL   the folder (/var/lib/virtfirewalld-tests/kernel)
set -euo pipefail

cache=${VIRTFIREWALLD_TEST_KERNEL:-/var/lib/virtfirewalld-tests/kernel}

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
[[ -x /usr/sbin/depmod ]] || missing+=(kmod)
if ((${#missing[@]} == 0)) && [[ -e $cache/complete ]]; then
	exit 0
fi
if ((EUID != 0)); then
	echo "setup: missing for another kernel: ${missing[*]} $cache; run this as root" >&2
	exit 1
fi
if [[ $(dpkg --print-architecture) != amd64 ]]; then
	echo "setup: the tests on another kernel are for amd64 machines" >&2
	exit 1
fi

. "$(dirname "${BASH_SOURCE[0]}")/../apt.sh"
if ((${#missing[@]} > 0)); then
	install_packages "${missing[@]}"
fi
[[ -e $cache/complete ]] && exit 0

# One at a time; what is whole is moved into place, so that an interrupted run
# leaves nothing that looks ready.
mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9
[[ -e $cache/complete ]] && exit 0
rm -rf "$cache".new.*
work=$(mktemp -d "$cache.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# bookworm's packages, whatever the machine runs: later kernels have what the
# tests want one without.
apt=(-q)
. /etc/os-release
if [[ ${VERSION_CODENAME:-} != bookworm ]]; then
	mkdir -p "$work/apt/lists/partial"
	key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
	printf 'deb %s http://deb.debian.org/%s main\n' "$key" 'debian bookworm' "$key" 'debian-security bookworm-security' >"$work/apt/sources.list"
	apt+=(-o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$work/apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
fi
quietly apt-get "${apt[@]}" update
# The flavour for clouds is smaller, and has no 9p.
package=$(apt-cache "${apt[@]}" depends linux-image-amd64 | awk '/Depends: linux-image-6\.1\./ {print $2; exit}')
if [[ -z $package ]]; then
	echo "setup: bookworm's linux-image-amd64 depends on no kernel that apt knows of" >&2
	exit 1
fi
echo "setup: unpacking $package into $cache"
mkdir -p "$work/new/tree/usr" "$work/package"
(cd "$work" && quietly apt-get "${apt[@]}" -o APT::Sandbox::User=root download "$package")
quietly dpkg-deb -x "$work"/linux-image-*.deb "$work/package"
# In a tree with a merged /usr, as the guest's is.
mv "$work/package/lib" "$work/new/tree/usr/lib"
mv "$work"/package/boot/vmlinuz-* "$work/new/vmlinuz"
ln -s usr/lib "$work/new/tree/lib"
quietly depmod -b "$work/new/tree" "$(ls "$work/new/tree/usr/lib/modules")"
rm "$work/new/tree/lib"
touch "$work/new/complete"
rm -rf "$cache"
mv -T "$work/new" "$cache"
echo "setup: done"
