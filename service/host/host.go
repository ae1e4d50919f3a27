// Package host gives networks what they need of their host besides rules: IP
// forwarding, connections that are tracked anew once they can be translated,
// and right checksums in the answers of a DHCP server. It acts in the network
// namespace of the calling thread and keeps no socket open.
package host
