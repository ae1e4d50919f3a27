package nftables

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

func TestMain(m *testing.M) {
	// Each run of a history makes namespaces and calls nft; the command line
	// can ask for more.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// changed is a network whose rules differ from part(n, true).
func changed(n int) ruleset.Part {
	p := part(n, true)
	p.Chains[0].Rules[0].Comment = "changed"
	return p
}

// moved is a network whose bridge has another index.
func moved(n int) ruleset.Part {
	p := part(n, true)
	for i := range p.Elements {
		if p.Elements[i].Index != 0 {
			p.Elements[i].Index += 5000
		}
	}
	return p
}

// sorted returns a listing without what depends on history, the order of networks.
func sorted(listed string) string {
	_, body, _ := strings.Cut(plain(listed), "\n")
	blocks := strings.Split(body, "\n\t}\n")
	for i, b := range blocks {
		if head, elements, ok := strings.Cut(b, "elements = {"); ok {
			list := regexp.MustCompile(`,\s+`).Split(strings.Trim(elements, " }\n"), -1)
			slices.Sort(list)
			blocks[i] = head + strings.Join(list, "\n")
		}
		blocks[i] = strings.TrimSpace(blocks[i])
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "\n")
}

// fresh returns the listing of a new table of these parts.
func fresh(t *testing.T, parts ...ruleset.Part) string {
	t.Helper()
	ns := newNamespace(t)
	mustSync(t, open(t, ns), parts...)
	return sorted(list(t, ns))
}

func expectTable(t *testing.T, ns int, parts ...ruleset.Part) {
	t.Helper()
	if diff := cmp.Diff(fresh(t, parts...), sorted(list(t, ns))); diff != "" {
		t.Errorf("the table made at once (-) and this one (+):\n%s", diff)
	}
}

// generation returns the number of the last change in the network namespace.
func generation(t *testing.T, b *Backend) (id uint32) {
	t.Helper()
	err := b.reader.read(t.Context(), func(c *nfnl.Conn) error {
		return c.Get(unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC, nil, func(body nfnl.Attributes) {
			id = body.Uint32(unix.NFTA_GEN_ID)
		})
	})
	if err != nil || id == 0 {
		t.Fatalf("generation %d, error %v", id, err)
	}
	return id
}

func TestTableComesWithTheFirstNetworkAndGoesWithTheLast(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	mustSync(t, b)
	if got := list(t, ns); got != "" {
		t.Fatalf("there is a table without networks:\n%s", got)
	}
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
	expectTable(t, ns, part(1, true), part(2, true))
	mustApply(t, b, ruleset.Change{Remove: []string{"n1", "never heard of"}})
	expectTable(t, ns, part(2, true))
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(3, true)}, Remove: []string{"n2"}})
	expectTable(t, ns, part(3, true))
	mustApply(t, b, ruleset.Change{Remove: []string{"n3"}})
	if got := run(t, ns, "nft", "list", "ruleset"); got != "" {
		t.Errorf("after the last network there is still:\n%s", got)
	}
}

// TestMembers: networks are compiled for their bridges, and Sync names all of
// them where the table was not there, else those that were damaged.
func TestMembers(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns, unowned)
	member := func(n, index int) backend.Member {
		return backend.Member{Index: index, Network: network.Network{
			Name: fmt.Sprintf("n%d", n), Bridge: fmt.Sprintf("vb%d", n), Mode: network.ModeNAT,
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 1}), 24)},
		}}
	}
	expect := func(members ...backend.Member) {
		t.Helper()
		expectTable(t, ns, compile(members)...)
	}
	sync := func(want []string, members ...backend.Member) {
		t.Helper()
		damaged, err := b.Sync(t.Context(), members)
		if diff := cmp.Diff(want, damaged); err != nil || diff != "" {
			t.Errorf("damaged (-want +got), error %v:\n%s", err, diff)
		}
		expect(members...)
	}
	sync([]string{"n1", "n2"}, member(1, 0), member(2, 0))
	sync(nil, member(1, 0), member(2, 0))
	run(t, ns, "nft", "delete element "+table+" replies4_name { vb2 . 10.0.2.0 }")
	sync([]string{"n2"}, member(1, 0), member(2, 0))
	run(t, ns, "nft", "flush chain "+table+" refuse")
	sync([]string{"n1", "n2"}, member(1, 0), member(2, 0))
	if err := b.Apply(t.Context(), backend.Change{Set: []backend.Member{member(2, 77), member(3, 0)}, Remove: []string{"n1"}}); err != nil {
		t.Fatal(err)
	}
	expect(member(2, 77), member(3, 0))
	if err := b.RemoveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := run(t, ns, "nft", "list", "ruleset"); got != "" {
		t.Errorf("after RemoveAll there is still:\n%s", got)
	}
}

func TestReplacingChangesChainsAmongEachOther(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true)}})
	// A new chain that an old one leads to, then one that is no longer.
	p := part(1, true)
	p.Chains = append(p.Chains, ruleset.Chain{Name: "net_n1_more", Rules: []ruleset.Rule{rule(ruleset.Accept{})}})
	p.Chains[0].Rules = append(p.Chains[0].Rules, rule(ruleset.Goto{Chain: "net_n1_more"}))
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{p}})
	expectTable(t, ns, p)
	less := part(1, true)
	less.Chains = less.Chains[:2]
	less.Elements = less.Elements[:6]
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{less}})
	expectTable(t, ns, less)
}

func TestWhatIsTheSameCostsNothing(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
	before := generation(t, b)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
	mustSync(t, b, part(2, true), part(1, true))
	mustApply(t, b, ruleset.Change{Remove: []string{"unknown"}})
	if after := generation(t, b); after != before {
		t.Errorf("the ruleset's generation went from %d to %d though nothing changed", before, after)
	}
}

// ruleHandles returns the kernel's handles of one chain's rules.
func ruleHandles(t *testing.T, ns int) string {
	t.Helper()
	listed := run(t, ns, "nft", "-a", "list", "chain", "inet", ruleset.TableName, "net_n1_from")
	return strings.Join(regexp.MustCompile(`# handle \d+`).FindAllString(listed, -1), ", ")
}

func TestANewIndexSwapsElementsAlone(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true)}})
	rules := ruleHandles(t, ns)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{moved(1)}})
	expectTable(t, ns, moved(1))
	if after := ruleHandles(t, ns); after != rules {
		t.Errorf("rules were made anew: %s before, %s after", rules, after)
	}
	gone := moved(1)
	gone.Elements = slices.DeleteFunc(gone.Elements, func(e ruleset.Element) bool { return e.Index != 0 })
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{gone}})
	expectTable(t, ns, gone)
}

func TestABridgeMovesFromOneNetworkToAnother(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
	thief := part(2, true)
	thief.Elements = part(1, true).Elements
	for i, e := range thief.Elements {
		thief.Elements[i].Goto = strings.Replace(e.Goto, "n1", "n2", 1)
	}
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{thief}, Remove: []string{"n1"}})
	expectTable(t, ns, thief)
}

// TestARefusedChangeLeavesAll tries changes that fail late in a batch that
// would also have added, replaced and removed networks.
func TestARefusedChangeLeavesAll(t *testing.T) {
	tests := map[string]struct {
		spoil func(p *ruleset.Part)
		want  []string // of the error
	}{
		"a rule to a missing chain": {
			func(p *ruleset.Part) {
				p.Chains[1].Rules = append(p.Chains[1].Rules, ruleset.Rule{Action: ruleset.Goto{Chain: "nowhere"}, Comment: "lost"})
			},
			[]string{"adding a rule to chain net_n3_to", `"lost"`, "no such file or directory"},
		},
		"a rule with a missing counter": {
			func(p *ruleset.Part) { p.Counters = p.Counters[1:] },
			[]string{"adding a rule to chain net_n3_from", "expression objref"},
		},
		"an element to a missing chain": {
			func(p *ruleset.Part) { p.Elements[5].Goto = "nowhere" },
			[]string{"adding elements to set to_name", `element "vb3" : goto nowhere`},
		},
		"a loop": {
			func(p *ruleset.Part) { p.Chains[1].Rules[1].Action = ruleset.Goto{Chain: "net_n3_to"} },
			[]string{"the kernel refused", "too many links"},
		},
		"another network's bridge": {
			func(p *ruleset.Part) { p.Elements[3].Name = "vb1" },
			[]string{"adding elements to set from_name", "file exists"},
		},
		"masquerade off its hook": {
			func(p *ruleset.Part) { p.Chains[0].Rules[0].Action = ruleset.Masquerade{} },
			[]string{"operation not supported"},
		},
		"a name too long": {
			func(p *ruleset.Part) { p.Chains[0].Name = strings.Repeat("x", 300) },
			[]string{"adding chain xxx"},
		},
		"a set that is none":         {func(p *ruleset.Part) { p.Elements[0].Set = "none" }, []string{`no set "none"`}},
		"an index of 0":              {func(p *ruleset.Part) { p.Elements[0].Index = 0 }, []string{"does not fit field iface_index of set same_bridge_id"}},
		"an interface name too long": {func(p *ruleset.Part) { p.Elements[1].Name = "sixteen_letters_" }, []string{"does not fit"}},
		"a rule that cannot be":      {func(p *ruleset.Part) { p.Chains[0].Rules[0].Action = ruleset.ResetTCP{} }, []string{"match of the protocol"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			b := open(t, ns)
			mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
			before := list(t, ns)
			bad := part(3, true)
			tt.spoil(&bad)
			err := b.applyParts(context.Background(), ruleset.Change{Set: []ruleset.Part{changed(1), bad}, Remove: []string{"n2"}})
			if err == nil {
				t.Fatalf("the kernel took it:\n%s", list(t, ns))
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if diff := cmp.Diff(before, list(t, ns)); diff != "" {
				t.Errorf("it failed and changed:\n%s", diff)
			}
			mustApply(t, b, ruleset.Change{Set: []ruleset.Part{changed(1), part(3, true)}, Remove: []string{"n2"}})
			expectTable(t, ns, changed(1), part(3, true))
		})
	}
}

// faulty is a wire that loses the kernel's answer, before or after it acted.
type faulty struct {
	wire
	lose    bool
	reaches bool
}

func (f *faulty) exchange(messages []netlink.Message) error {
	if !f.lose {
		return f.wire.exchange(messages)
	}
	f.lose = false
	if f.reaches {
		if err := f.wire.exchange(messages); err != nil {
			return err
		}
	}
	return errors.Join(errUnknown, unix.ENOBUFS)
}

func TestALostAnswerIsFoundOut(t *testing.T) {
	for _, reaches := range []bool{true, false} {
		ns := newNamespace(t)
		b := open(t, ns)
		mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(1, true), part(2, true)}})
		b.wire = &faulty{wire: b.wire, lose: true, reaches: reaches}
		err := b.applyParts(context.Background(), ruleset.Change{Set: []ruleset.Part{changed(1), part(3, true)}, Remove: []string{"n2"}})
		if !errors.Is(err, unix.ENOBUFS) {
			t.Fatalf("error %v, want ENOBUFS", err)
		}
		mustApply(t, b, ruleset.Change{Set: []ruleset.Part{part(4, true)}})
		expectTable(t, ns, part(1, true), part(2, true), part(4, true))
	}
}

func TestReadersAndWritersAtOnce(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	mustSync(t, b, parts(20)...)
	var wg sync.WaitGroup
	ctx := context.Background()
	for i := range 4 {
		wg.Go(func() {
			for range 20 {
				mustApply(t, b, ruleset.Change{Set: []ruleset.Part{changed(100 + i)}})
				mustApply(t, b, ruleset.Change{Remove: []string{changed(100 + i).Network}})
			}
		})
		wg.Go(func() {
			for range 10 {
				if got, err := b.Counters(ctx); err != nil || len(got) < 20 {
					t.Errorf("counters of %d networks, error %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	expectTable(t, ns, parts(20)...)
}

func TestClosedAndCancelled(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.applyParts(ctx, ruleset.Change{Set: []ruleset.Part{part(1, true)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the context is cancelled", err)
	}
	if _, err := b.Counters(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the context is cancelled", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sync(context.Background(), nil); !errors.Is(err, errClosed) {
		t.Errorf("error %v, want that the backend is closed", err)
	}
}

func TestProbeLeavesNothingBehind(t *testing.T) {
	for _, own := range []bool{true, false} {
		ns := newNamespace(t)
		b := open(t, ns, func(c *Config) { c.Owned = own })
		if err := b.Probe(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := run(t, ns, "nft", "list", "ruleset"); got != "" {
			t.Errorf("the probe left:\n%s", got)
		}
		if b.Owned() != own {
			t.Errorf("owned is %v, want %v", b.Owned(), own)
		}
	}
}

// oldKernel is a wire to a kernel that does not know a table's owner, or not
// that it may outlive it.
type oldKernel struct{ wire }

func (o oldKernel) exchange(messages []netlink.Message) error {
	for _, m := range messages {
		if m.Header.Type == nfnl.Type(unix.NFT_MSG_NEWTABLE) {
			if nfnl.Body(m.Data).Uint32(unix.NFTA_TABLE_FLAGS) != 0 {
				return fmt.Errorf("the kernel refused it: %w", unix.EOPNOTSUPP)
			}
		}
	}
	return o.wire.exchange(messages)
}

func TestKernelsWithoutOwnership(t *testing.T) {
	ns := newNamespace(t)
	b := open(t, ns)
	b.wire = oldKernel{b.wire}
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSync(t, b, parts(2)...)
	mustApply(t, b, ruleset.Change{Set: []ruleset.Part{changed(1)}})
	if b.Owned() {
		t.Error("the table is said to be owned")
	}
	expectTable(t, ns, part(0, true), changed(1))
	run(t, ns, "nft", "delete", "table", "inet", ruleset.TableName)
}
