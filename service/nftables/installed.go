package nftables

import "github.com/virtfirewalld/virtfirewalld/service/ruleset"

// Installed is a network's part under the names that its chains have in the
// kernel: a replaced network's carry a suffix. ok is false for a network that
// was not put there.
func (b *Backend) Installed(network string) (part ruleset.Part, ok bool) {
	b.state.RLock()
	defer b.state.RUnlock()
	in, ok := b.installed[network]
	if !ok {
		return ruleset.Part{}, false
	}
	return withSuffix(in.part, in.suffix), true
}
