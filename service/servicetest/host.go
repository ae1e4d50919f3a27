package servicetest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// The forwarding settings that Needs has.
const (
	Forward4 = "net/ipv4/ip_forward"
	Forward6 = "net/ipv6/conf/all/forwarding"
)

// Needs is an in-memory service.HostNeeds and service.Advertisements.
type Needs struct {
	mu        sync.Mutex
	off       map[string]bool // settings that are off
	problem   string          // why forwarding must not be switched on
	err       error           // the error of switching it on
	silenced  map[int]bool    // links whose advertisements are ignored
	heard     map[int]bool    // links whose advertisements Hear switched on
	forgotten []string        // networks that Retranslate was called for
	filled    map[string]host.DHCP
}

// NewNeeds returns a host that forwards nothing.
func NewNeeds() *Needs {
	return &Needs{off: map[string]bool{Forward4: true, Forward6: true}, silenced: map[int]bool{}, heard: map[int]bool{}}
}

// SwitchOff switches a setting off.
func (n *Needs) SwitchOff(setting string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[setting] = true
}

// Refuse sets the reason why forwarding must not be switched on, or an error.
func (n *Needs) Refuse(problem string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.problem, n.err = problem, err
}

// Hear switches a link's advertisements on, as an administrator might.
func (n *Needs) Hear(index int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard[index] = true
}

// Forwards reports whether a setting is on.
func (n *Needs) Forwards(setting string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.off[setting]
}

// Retranslated returns the networks that Retranslate was called for.
func (n *Needs) Retranslated() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.forgotten)
}

// Filled returns the bridges that have checksum help.
func (n *Needs) Filled() map[string]host.DHCP {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.filled)
}

// ForwardingNeeded returns the settings that a demand needs.
func (n *Needs) ForwardingNeeded(d host.Demand) (needed []string) {
	if d.V4 {
		needed = append(needed, Forward4)
	}
	if d.V6 {
		needed = append(needed, Forward6)
	}
	return needed
}

// ForwardingOff returns those of them that are off.
func (n *Needs) ForwardingOff(d host.Demand) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(n.ForwardingNeeded(d), func(s string) bool { return !n.off[s] }), n.err
}

// Forward switches them on.
func (n *Needs) Forward(_ context.Context, d host.Demand) (on []string, problem string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.problem != "" || n.err != nil {
		return nil, n.problem, n.err
	}
	for _, s := range n.ForwardingNeeded(d) {
		if n.off[s] {
			on = append(on, s)
			delete(n.off, s)
		}
	}
	return on, "", nil
}

// Silence makes the host ignore a link's advertisements.
func (n *Needs) Silence(index int) (again bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	again = n.silenced[index] && n.heard[index]
	n.silenced[index] = true
	delete(n.heard, index)
	return again, nil
}

// Restore ends that. It does nothing to a link that Silence was not called for.
func (n *Needs) Restore(index int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.silenced, index)
	return nil
}

// Silenced returns the links whose advertisements are ignored.
func (n *Needs) Silenced() []int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.silenced))
}

// Retranslate records the networks.
func (n *Needs) Retranslate(_ context.Context, nets []host.Guests) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range nets {
		n.forgotten = append(n.forgotten, m.Network.Name)
	}
	return nil
}

// FillChecksums records the bridges.
func (n *Needs) FillChecksums(_ context.Context, bridges map[string]host.DHCP) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filled = maps.Clone(bridges)
	return nil
}

// Libvirt is a libvirt whose status documents are in a folder. Until Lose, the
// rules of its networks are present.
type Libvirt struct {
	*libvirt.Driver
	changed chan struct{}

	mu   sync.Mutex
	lost bool
	err  error // the error of looking for its rules
}

// NewLibvirt returns a libvirt that keeps its state in a folder.
func NewLibvirt(dir string) *Libvirt {
	return &Libvirt{Driver: libvirt.New(dir), changed: make(chan struct{}, 1)}
}

// Changed makes the service read the folder again.
func (l *Libvirt) Changed() { l.changed <- struct{}{} }

// Lose sets whether libvirt's rules are lost, and the error of looking for them.
func (l *Libvirt) Lose(lost bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost, l.err = lost, err
}

// Follow calls changed after each call of Changed.
func (l *Libvirt) Follow(ctx context.Context, changed func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.changed:
			changed()
		}
	}
}

// Present finds all rules of a network, or none.
func (l *Libvirt) Present(_ context.Context, nets []network.Network) (neighbour.Presence, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := neighbour.Presence{Tables: map[string]int{}, XTables: map[string]int{}, Chains: !l.lost}
	if !l.lost {
		for _, n := range nets {
			p.XTables[n.Name] = 1000
		}
	}
	return p, l.err
}

// Remove removes nothing: nothing is left behind.
func (l *Libvirt) Remove(context.Context, []network.Network, xtables.Variants) (neighbour.Report, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return neighbour.Report{}, l.err
}

// Touches are other programs' changes of rules, as the watch of the nft table or
// of iptables' chains reports them.
type Touches struct {
	mu      sync.Mutex
	touched chan struct{}
	legacy  chan struct{}
	took    []watch.Touch
}

// NewTouches returns a watch without changes.
func NewTouches() *Touches {
	return &Touches{touched: make(chan struct{}, 1), legacy: make(chan struct{}, 1)}
}

// Touch reports a change by a program.
func (t *Touches) Touch(program string, pid int) {
	t.mu.Lock()
	t.took = append(t.took, watch.Touch{Program: program, PID: pid})
	t.mu.Unlock()
	select {
	case t.touched <- struct{}{}:
	default:
	}
}

// Call reports a call of iptables' legacy variant.
func (t *Touches) Call() { t.legacy <- struct{}{} }

// Touched signals that Take has something to return.
func (t *Touches) Touched() <-chan struct{} { return t.touched }

// Take returns the changes since the last call.
func (t *Touches) Take() []watch.Touch {
	t.mu.Lock()
	defer t.mu.Unlock()
	took := t.took
	t.took = nil
	return took
}

// Watch watches iptables' chains.
func (t *Touches) Watch(xtables.Variants) (service.ChainWatch, error) { return t, nil }

// NFT signals changes through nf_tables.
func (t *Touches) NFT() <-chan struct{} { return t.touched }

// Legacy signals calls of the legacy variant.
func (t *Touches) Legacy() <-chan struct{} { return t.legacy }

// Close ends a watch.
func (t *Touches) Close() error { return nil }
