#!/bin/bash
# Guests that send from the first moment at which their bridges are there, and
# an outside that counts what arrives. Everything is ready before the bridges
# come: addresses, routes, neighbours, senders, and the host forwards.
set -e

sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

bridge_mac=52:54:00:00:00:01 outside_mac=52:54:00:00:00:02

# node NAME makes a network namespace with eth0, whose other end is v-NAME, and
# counts there from the start what comes and what goes.
node() {
	ip netns add "$1"
	ip link add "v-$1" type veth peer name eth0 netns "$1"
	ip -n "$1" link set lo up
	ip netns exec "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.eth0.accept_dad=0
	ip netns exec "$1" nft -f - <<-RULES
	table inet seen {
		counter sent { }
		counter translated { }
		counter untranslated { }
		counter isolated { }
		counter forged { }
		counter unasked { }
		chain in {
			type filter hook prerouting priority raw;
			meta nfproto ipv4 udp dport 9001 ip saddr 203.0.113.2 counter name translated accept
			meta nfproto ipv6 udp dport 9001 ip6 saddr 2001:db8:ffff::2 counter name translated accept
			udp dport 9001 counter name untranslated
			udp dport 9002 counter name isolated
			udp dport 9003 counter name forged
			udp dport 9004 counter name unasked
		}
		chain out {
			type filter hook output priority raw;
			udp dport 9001-9004 counter name sent
		}
	}
	RULES
}

# guest NAME SUBNET4 SUBNET6 makes one whose bridge is not there yet: the last
# two addresses outside are reached from a source of another network.
guest() {
	node "$1"
	ip -n "$1" address add "$2.10/24" dev eth0
	ip -n "$1" address add "$3::10/64" dev eth0 nodad
	ip -n "$1" address add 100.64.66.6/32 dev lo
	ip -n "$1" address add fd66::6/128 dev lo nodad
	ip -n "$1" link set eth0 up
	ip -n "$1" neighbour add "$2.1" lladdr $bridge_mac dev eth0 nud permanent
	ip -n "$1" neighbour add "$3::1" lladdr $bridge_mac dev eth0 nud permanent
	ip -n "$1" route add default via "$2.1"
	ip -n "$1" route add default via "$3::1"
	ip -n "$1" route add 203.0.113.9 via "$2.1" src 100.64.66.6
	ip -n "$1" route add 2001:db8:ffff::9 via "$3::1" src fd66::6
}

# send NODE ADDRESS/PORT... sends until the host ends.
send() {
	local node=$1
	shift
	ip netns exec "$node" bash -c 'exec 3<> <(:)
		while :; do
			for to; do echo x >"/dev/udp/$to"; done
			read -rt 0.003 -u 3
		done' bash "$@" >/dev/null 2>&1 &
}

# appear BRIDGE PORT SUBNET4 SUBNET6 brings a guest's bridge.
appear() {
	ip link set "$2" up
	ip link add "$1" address $bridge_mac type bridge
	ip address add "$3.1/24" dev "$1"
	ip address add "$4::1/64" dev "$1" nodad
	ip link set "$2" master "$1"
	ip link set "$1" up
}

node outside
ip -n outside link set eth0 address $outside_mac up
ip link set v-outside up
ip address add 203.0.113.2/24 dev v-outside
ip address add 2001:db8:ffff::2/64 dev v-outside nodad
for address in 203.0.113.1/24 203.0.113.9/24; do
	ip -n outside address add $address dev eth0
	ip neighbour add "${address%/*}" lladdr $outside_mac dev v-outside nud permanent
done
for address in 2001:db8:ffff::1/64 2001:db8:ffff::9/64; do
	ip -n outside address add $address dev eth0 nodad
	ip neighbour add "${address%/*}" lladdr $outside_mac dev v-outside nud permanent
done
ip -n outside route add default via 203.0.113.2
ip -n outside route add default via 2001:db8:ffff::2
ip route add default via 203.0.113.1
ip route add default via 2001:db8:ffff::1

guest nat 192.168.122 fd00:122
guest isolated 10.9.0 fd00:9
send nat 203.0.113.1/9001 2001:db8:ffff::1/9001 203.0.113.9/9003 2001:db8:ffff::9/9003
send isolated 203.0.113.1/9002 2001:db8:ffff::1/9002 203.0.113.9/9003 2001:db8:ffff::9/9003
send outside 192.168.122.10/9004 fd00:122::10/9004 10.9.0.10/9004 fd00:9::10/9004

appear virbr0 v-nat 192.168.122 fd00:122
appear virbr9 v-isolated 10.9.0 fd00:9
