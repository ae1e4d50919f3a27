package nftables

import (
	"fmt"

	"github.com/google/nftables"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// transaction is what one batch does. The kernel applies it atomically.
type transaction struct {
	rebuild  bool // delete the table first, with all that is in it
	drop     bool // delete the table and do nothing else
	takeOver bool // claim and activate the table, even if there is nothing else to do

	sets        []ruleset.Set
	counters    []counter
	chains      []ruleset.Chain // new ones, with their rules
	refill      []ruleset.Chain // existing ones, flushed first
	delElements []element
	addElements []element
	delChains   []string
	delSets     []string
	delCounters []string

	recounts []recount

	delFlowtables []string
	delObjects    []object
}

// counter is a named counter with the value that it begins at.
type counter struct {
	name           string
	packets, bytes uint64
}

// empty reports whether there is nothing to send to the kernel.
func (t *transaction) empty() bool {
	return !t.rebuild && !t.drop && !t.takeOver && len(t.sets)+len(t.counters)+len(t.chains)+len(t.refill)+
		len(t.delElements)+len(t.addElements)+len(t.delChains)+len(t.delSets)+len(t.delCounters)+
		len(t.recounts)+len(t.delFlowtables)+len(t.delObjects) == 0
}

// add appends what another transaction does.
func (t *transaction) add(o *transaction) {
	t.sets = append(t.sets, o.sets...)
	t.counters = append(t.counters, o.counters...)
	t.chains = append(t.chains, o.chains...)
	t.refill = append(t.refill, o.refill...)
	t.delElements = append(t.delElements, o.delElements...)
	t.addElements = append(t.addElements, o.addElements...)
	t.delChains = append(t.delChains, o.delChains...)
	t.delSets = append(t.delSets, o.delSets...)
	t.delCounters = append(t.delCounters, o.delCounters...)
	t.recounts = append(t.recounts, o.recounts...)
	t.delFlowtables = append(t.delFlowtables, o.delFlowtables...)
	t.delObjects = append(t.delObjects, o.delObjects...)
}

// big reports whether the batch is worth a collection of its garbage afterwards.
func (t *transaction) big() bool {
	const networks, chains = 2 * syncBatch, 3
	return len(t.chains)+len(t.refill)+len(t.delChains) > networks*chains
}

// queue queues the transaction's messages. An object must exist before another
// refers to it, and must not be referred to when it is deleted: so elements are
// deleted before the chains that they lead to, and counters last.
func (t *transaction) queue(c *nftables.Conn, table nftables.Table) error {
	// Flags are repeated in each batch: an owner that leaves one out gets
	// EOPNOTSUPP.
	tab := &table
	c.AddTable(tab)
	if t.drop {
		c.DelTable(tab)
		return nil
	}
	if t.rebuild {
		c.DelTable(tab)
		c.AddTable(tab)
	}
	if err := t.queueNew(c, tab); err != nil {
		return err
	}
	if err := queueElements(t.delElements, tab, c.SetDeleteElements); err != nil {
		return err
	}
	if err := queueElements(t.addElements, tab, c.SetAddElements); err != nil {
		return err
	}
	t.queueOld(c, tab)
	return nil
}

func (t *transaction) queueNew(c *nftables.Conn, tab *nftables.Table) error {
	for _, n := range t.recounts {
		if n.had {
			c.DeleteObject(&nftables.CounterObj{Table: tab, Name: n.name})
		}
		if n.packets > 0 || n.bytes > 0 {
			c.AddObj(&nftables.CounterObj{Table: tab, Name: n.name, Packets: n.packets, Bytes: n.bytes})
		}
	}
	for _, n := range t.counters {
		c.AddObj(&nftables.CounterObj{Table: tab, Name: n.name, Packets: n.packets, Bytes: n.bytes})
	}
	for _, s := range t.sets {
		set, err := encodeSet(tab, s)
		if err != nil {
			return err
		}
		if err := c.AddSet(set, nil); err != nil {
			return fmt.Errorf("encoding set %s: %w", s.Name, err)
		}
	}
	for _, ch := range t.chains {
		chain, err := encodeChain(tab, ch)
		if err != nil {
			return err
		}
		c.AddChain(chain)
	}
	for _, ch := range t.chains {
		if err := queueRules(c, tab, ch); err != nil {
			return err
		}
	}
	for _, ch := range t.refill {
		chain, err := encodeChain(tab, ch)
		if err != nil {
			return err
		}
		if chain.Policy != nil {
			c.AddChain(chain) // resets the policy
		}
		c.FlushChain(chain)
		if err := queueRules(c, tab, ch); err != nil {
			return err
		}
	}
	return nil
}

func queueRules(c *nftables.Conn, tab *nftables.Table, ch ruleset.Chain) error {
	chain := &nftables.Chain{Table: tab, Name: ch.Name}
	for _, r := range ch.Rules {
		exprs, err := encodeRule(r)
		if err != nil {
			return fmt.Errorf("encoding chain %s: %w", ch.Name, err)
		}
		c.AddRule(&nftables.Rule{Table: tab, Chain: chain, Exprs: exprs, UserData: ruleData(r)})
	}
	return nil
}

// queueElements queues the elements of each set together: fewer messages, and
// one look-up of the set for all.
func queueElements(elements []element, tab *nftables.Table, do func(*nftables.Set, []nftables.SetElement) error) error {
	var order []string
	bySet := make(map[string][]nftables.SetElement)
	for _, e := range elements {
		if _, ok := bySet[e.set]; !ok {
			order = append(order, e.set)
		}
		bySet[e.set] = append(bySet[e.set], encodeElement(e))
	}
	for _, name := range order {
		if err := do(&nftables.Set{Table: tab, Name: name}, bySet[name]); err != nil {
			return fmt.Errorf("encoding elements of set %s: %w", name, err)
		}
	}
	return nil
}

// queueOld queues deletions. It flushes all chains before it deletes any, since
// they may lead to one another, and kernels before 6.2 may count rules of the
// same batch.
func (t *transaction) queueOld(c *nftables.Conn, tab *nftables.Table) {
	for _, name := range t.delChains {
		c.FlushChain(&nftables.Chain{Table: tab, Name: name})
	}
	for _, name := range t.delChains {
		c.DelChain(&nftables.Chain{Table: tab, Name: name})
	}
	for _, name := range t.delSets {
		c.DelSet(&nftables.Set{Table: tab, Name: name})
	}
	for _, name := range t.delCounters {
		c.DeleteObject(&nftables.CounterObj{Table: tab, Name: name})
	}
	for _, o := range t.delObjects {
		c.DeleteObject(&nftables.NamedObj{Table: tab, Name: o.name, Type: nftables.ObjType(o.kind)})
	}
	for _, name := range t.delFlowtables {
		c.DelFlowtable(&nftables.Flowtable{Table: tab, Name: name})
	}
}
