#!/bin/sh
# Lists the networks, follows the signals, and adds a network.
#
#     client.sh [NAME BRIDGE ADDRESS]     e.g. client.sh lab virbr5 192.168.150.1/24
#
# Needs gdbus (libglib2.0-bin). Adding needs root; the rest does not. Ends with Ctrl-C.
set -eu

service=org.virtfirewall.NetworkFirewall1
manager=/org/virtfirewall/NetworkFirewall1

call() { # OBJECT METHOD [ARGUMENT...]
    object=$1 method=$2
    shift 2
    gdbus call --system --dest "$service" --object-path "$object" --method "$method" "$@"
}

property() { # OBJECT NAME
    call "$1" org.freedesktop.DBus.Properties.Get "$service.Network" "$2" | sed "s/^(<'*//; s/'*>,)\$//"
}

show() { # OBJECT
    echo "$(property "$1" Name): $(property "$1" Bridge), $(property "$1" ForwardMode)," \
        "$(property "$1" Addresses): $(property "$1" State)"
}

# Follow first and list then, so that no network falls between the two.
gdbus monitor --system --dest "$service" --object-path "$manager" &
trap 'kill $!' EXIT
trap 'exit 0' INT TERM

for network in $(call "$manager" "$service.ListNetworks" | grep -o "$manager/network/[A-Za-z0-9_]*"); do
    show "$network"
done

if [ $# -eq 3 ]; then
    network=$(call "$manager" "$service.AddNetwork" \
        "$1" "{'Bridge': <'$2'>, 'Addresses': <['$3']>}" '{}' | grep -o "$manager/network/[A-Za-z0-9_]*")
    show "$network"
fi

wait
