package service_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
)

// TestErrorKinds: each call that fails has its kind of error and changes nothing.
func TestErrorKinds(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Start()
		r.add("nat")
		before := r.State()
		add := func(doc string) error { return r.Add(ctx, doc, service.ChangeOptions{}) }
		update := func(key string, value any) error {
			return r.Service.UpdateNetwork(ctx, "default", map[string]any{key: value}, service.ChangeOptions{})
		}
		many := make([]string, 65)
		for i := range many {
			many[i] = fmt.Sprintf("10.%d.0.1/24", i)
		}
		_, preview := r.Service.Preview(ctx, parsed(t, servicetest.NetXML("other", "virbr0", "nat", "10.1.0.1/24")), "")
		_, unknown := r.Service.Preview(ctx, network.Network{}, "pf")
		_, noRules := r.Service.Ruleset(ctx, "other")
		for what, c := range map[string]struct {
			err  error
			want service.Kind
		}{
			"a name that is taken":    {add(servicetest.NetXML("default", "virbr1", "nat", "10.1.0.1/24")), service.NetworkExists},
			"a bridge that is taken":  {add(servicetest.NetXML("other", "virbr0", "nat", "10.1.0.1/24")), service.BridgeInUse},
			"a subnet that is taken":  {add(servicetest.NetXML("other", "virbr1", "nat", "192.168.0.1/16")), service.SubnetOverlap},
			"the uplink's subnet":     {add(servicetest.NetXML("other", "virbr1", "nat", "203.0.113.9/24")), service.SubnetOverlap},
			"no bridge":               {add(servicetest.NetXML("other", "eth0", "nat", "10.1.0.1/24")), service.InvalidArgument},
			"no such zone":            {add(servicetest.Zoned(servicetest.NetXML("other", "virbr1", "nat", "10.1.0.1/24"), "nosuch")), service.ZoneNotFound},
			"no such network":         {r.Service.RemoveNetwork(ctx, "other", service.ChangeOptions{}), service.NetworkNotFound},
			"no such network, update": {r.Service.UpdateNetwork(ctx, "other", nil, service.ChangeOptions{}), service.NetworkNotFound},
			"too much":                {update("Addresses", many), service.LimitExceeded},
			"an unknown setting":      {update("Colour", "red"), service.InvalidArgument},
			"a wrong type":            {update("DNS", "yes"), service.InvalidArgument},
			"an unknown backend":      {r.Service.SetBackend(ctx, "pf", service.ChangeOptions{}), service.InvalidArgument},
			"preview, taken bridge":   {preview, service.BridgeInUse},
			"preview, backend":        {unknown, service.InvalidArgument},
			"no rules":                {noRules, service.NetworkNotFound},
		} {
			wantKind(t, what, c.err, c.want)
			if c.err != nil && c.err.Error() == "" {
				t.Errorf("%s: the error says nothing", what)
			}
		}
		r.wantSame("after calls that failed", before)
	})
}

func parsed(t *testing.T, doc string) network.Network {
	t.Helper()
	n, err := network.FromXML([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestExpectIsAskedFirst: Expect is called first, with the present network, and its
// error ends the call.
func TestExpectIsAskedFirst(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Start()
		r.add("nat")
		changed := errors.New("changed meanwhile")
		var seen []string
		o := service.ChangeOptions{Replace: true, Expect: func(before *service.Status) error {
			if seen = append(seen, "none"); before != nil {
				seen[len(seen)-1] = string(before.Network.Mode)
			}
			return changed
		}}
		_, bind := r.Service.BindInterface(ctx, "virbr0", "trusted", o.Expect)
		for what, err := range map[string]error{
			"add":    r.Add(ctx, servicetest.NetXML("other", "virbr1", "nat", "10.1.0.1/24"), o),
			"update": r.Service.UpdateNetwork(ctx, "default", map[string]any{"DNS": false}, o),
			"remove": r.Service.RemoveNetwork(ctx, "default", o),
			"bind":   bind, "unbind": r.Service.UnbindInterface(ctx, "virbr0", o.Expect),
		} {
			if !errors.Is(err, changed) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got := strings.Count(strings.Join(seen, " "), "nat"); len(seen) != 5 || got != 4 {
			t.Errorf("asked about %q", seen)
		}
	})
}

func TestPreviewAndRuleset(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Start()
		n := parsed(t, servicetest.NetXML("default", "virbr0", "nat", natNet))
		for backend, want := range map[string]string{"": "network default", choice.IPTables: "-A LIBVIRT_FWO"} {
			if text, err := r.Service.Preview(ctx, n, backend); err != nil || !strings.Contains(text, want) {
				t.Errorf("Preview with %q: %v\n%s", backend, err, text)
			}
		}
		n.Mode = network.ModeOpen
		if text, err := r.Service.Preview(ctx, n, ""); err != nil || !strings.HasPrefix(text, "# network default is open") {
			t.Errorf("Preview of an open one: %v\n%s", err, text)
		}
		r.add("nat")
		if text, err := r.Service.Ruleset(ctx, "default"); err != nil || !strings.Contains(text, "network default") {
			t.Errorf("Ruleset: %v\n%s", err, text)
		}
		r.Kernel.Flush()
		_, err := r.Service.Ruleset(ctx, "default")
		wantKind(t, "rules that are gone", err, service.ApplyFailed)
		r.Must(r.Service.UpdateNetwork(ctx, "default", map[string]any{"ForwardMode": "open"}, service.ChangeOptions{}))
		if text, err := r.Service.Ruleset(ctx, "default"); err != nil || !strings.Contains(text, "has no rules") {
			t.Errorf("Ruleset of an open one: %v\n%s", err, text)
		}
	})
}

// TestBridgeByAlternativeName: it is stored and in force under its own name.
func TestBridgeByAlternativeName(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.Links.Change(r.index("virbr0"), nameGuests)
		r.Must(r.Add(context.Background(), servicetest.NetXML("default", "guests", "nat", natNet), service.ChangeOptions{}))
		if st := r.status("default"); st.Network.Bridge != "virbr0" {
			t.Errorf("the network has bridge %s", st.Network.Bridge)
		}
		r.Must(r.Service.UpdateNetwork(context.Background(), "default", map[string]any{"Bridge": "guests"}, service.ChangeOptions{}))
		if st := r.status("default"); st.Network.Bridge != "virbr0" {
			t.Errorf("updated, the network has bridge %s", st.Network.Bridge)
		}
	})
}

// TestAlive: a watchdog learns whether the service follows the host.
func TestAlive(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		alive := func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return r.Service.Alive(ctx)
		}
		if !alive() {
			t.Error("a service that has nothing to do is not alive")
		}
		r.Stop()
		if alive() {
			t.Error("a service that has ended is alive")
		}
		r.Service = nil
	})
}

// TestManyNetworksChangeAtOnce: they share one log line each way.
func TestManyNetworksChangeAtOnce(t *testing.T) {
	virtual(t, func(r *rig) {
		ctx := context.Background()
		r.Firewalld.Stop()
		r.Start()
		const n = 25
		for i := range n {
			doc := servicetest.NetXML(fmt.Sprintf("n%d", i), fmt.Sprintf("br%d", i), "nat", fmt.Sprintf("10.%d.0.1/24", i))
			r.Must(r.Add(ctx, doc, service.ChangeOptions{}))
		}
		for i := range n {
			r.Links.Bridge(fmt.Sprintf("br%d", i))
		}
		pass(time.Second)
		for _, st := range r.Service.AllNetworks() {
			if st.State != service.StateActive {
				t.Errorf("%s is %s", st.Network.Name, st.State)
			}
		}
		r.Firewalld.Forget()
		r.Firewalld.Start()
		pass(time.Second)
		_, err := r.Service.InstallZones(ctx, false)
		r.Must(err)
		pass(time.Minute)
		for i := range n {
			r.wantZone("installed", fmt.Sprintf("br%d", i), "libvirt")
		}
	})
}
