package nftables

import (
	"context"
	"fmt"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

func TestFirst(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	if err := b.Probe(context.Background()); err != nil {
		t.Fatal(err)
	}
	fmt.Println(b.Owned(), run(t, ns, "nft", "list", "ruleset"))
	mustSync(t, b)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true)}})
	fmt.Println(list(t, ns))
	d, err := b.Verify(context.Background())
	fmt.Println(d, err)
	p := part(1, true)
	p.Chains[1].Rules = p.Chains[1].Rules[1:]
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{p, part(2, true)}})
	fmt.Println(list(t, ns))
	d, err = b.Verify(context.Background())
	fmt.Println(d, err)
	fmt.Printf("%+v\n", mustSync(t, b, p, part(3, true)))
	fmt.Println(b.ResetCounters(context.Background(), "n1"))
	fmt.Println(b.Counters(context.Background()))
	mustApply(t, b, ruleset.Change{Remove: []string{"n1", "n3"}})
	fmt.Println(list(t, ns))
}
