# Sourced by the set-up scripts: non-interactive apt.
export DEBIAN_FRONTEND=noninteractive

# quietly runs a command, whose output matters only if it fails.
quietly() {
	local output
	output=$("$@" </dev/null 2>&1) || {
		echo "$output" >&2
		echo "setup: failed: $*" >&2
		return 1
	}
}

install_packages() {
	echo "setup: installing with apt: $*"
	quietly apt-get update -q
	# Another run may hold dpkg's lock.
	quietly apt-get install -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends "$@"
}
