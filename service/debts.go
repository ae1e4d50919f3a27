package service

import (
	"maps"
	"slices"
	"sync"
)

// debts are what firewalld has yet to do: it did not when it was asked. Its
// methods may be called from any goroutine.
type debts struct {
	mu sync.RWMutex
	// owed are the zones that bridges have to go back to, "" for none.
	owed map[string]string
	// leaving are bridges that have yet to leave their zones, with the rules
	// that hold until then.
	leaving map[string]*managed
}

func (d *debts) owe(iface, zone string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owed[iface] = zone
}

func (d *debts) has(iface string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, owes := d.owed[iface]
	return owes
}

// all returns the zones that bridges have to go back to.
func (d *debts) all() map[string]string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.owed)
}

func (d *debts) settle(iface string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.owed, iface)
}

// put takes in what a transition leaves behind, and what it displaces.
func (d *debts) put(t transition) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.displaces != nil {
		delete(d.leaving, t.displaces.net.Bridge)
	}
	if t.stays != nil {
		d.leaving[t.stays.net.Bridge] = t.stays
	}
}

// leavingOn returns what holds for a bridge until it has left its zone; nil for
// nothing.
func (d *debts) leavingOn(bridge string) *managed {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.leaving[bridge]
}

func (d *debts) allLeaving() []*managed {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Collect(maps.Values(d.leaving))
}

// bridges returns those that have yet to leave their zones, sorted.
func (d *debts) bridges() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Sorted(maps.Keys(d.leaving))
}
