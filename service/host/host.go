// Package host provides what networks need of their host besides rules: IP
// forwarding, a restart of connections that can be translated now, and right
// checksums in the answers of a DHCP server. It acts in the network namespace of
// the calling thread and keeps no socket open.
package host
