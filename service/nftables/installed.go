package nftables

import "github.com/virtfirewalld/virtfirewalld/service/ruleset"

// Installed is what the kernel was given for a network; ok is false for one that
// was not put there.
func (b *Backend) Installed(network string) (part ruleset.Part, ok bool) {
	b.state.RLock()
	defer b.state.RUnlock()
	in, ok := b.installed[network]
	return in.part, ok
}
