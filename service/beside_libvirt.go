package service

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

const (
	// leftoverPause is how long events gather before what libvirt has is looked
	// at: where there is anything of iptables, each look runs programs.
	leftoverPause = 50 * time.Millisecond
	// lookPause is how long a look that failed, or that missed rules of
	// libvirt's, waits for the next one, and maxLookPause how far that grows: no
	// event tells of rules that a running libvirt puts back.
	lookPause    = 2 * time.Second
	maxLookPause = 5 * time.Minute
)

// libvirtLook is what is remembered from one look at libvirt to the next.
type libvirtLook struct {
	beside  []string        // the networks that the iptables backend has beside libvirt's
	missing map[string]bool // the networks whose rules libvirt lacked
	pause   time.Duration   // before the next look at those
	retry   time.Duration   // before the next look after a failure
	failure failure
}

// libvirtFollower goes by what libvirt has.
type libvirtFollower struct {
	libvirtState Libvirt
	leftovers    Leftovers
	backends     Backends
	networks     *networks
	rules        *rules
	lock         *changeLock
	log          logger
	workers      *workers
	last         libvirtLook // whoever holds the change lock
}

// round goes by what libvirt has, whenever that may be other than before:
// libvirt's rules for networks that it has stay, and those that it left behind for
// our networks go.
func (lv *libvirtFollower) round(ctx context.Context) (again time.Time) {
	lv.lock.during(ctx, func(one context.Context) {
		last := &lv.last
		wait, err := lv.look(one, last)
		if last.failure = last.failure.then(ctx, err, func(cause string) {
			lv.log.Warn("what libvirt left behind may still be there", "cause", cause)
		}); last.failure.failed {
			last.retry = min(max(2*last.retry, lookPause), maxLookPause)
			wait = last.retry
		} else {
			last.retry = 0
		}
		if wait > 0 {
			again = time.Now().Add(wait - leftoverPause) // which comes before each look
		}
	})
	return again
}

// follow has libvirt looked at when it starts or stops a network or its
// daemon starts, so that a host where nothing of that happens is left asleep.
func (lv *libvirtFollower) follow(ctx context.Context) {
	changed := func() {
		lv.workers.libvirt.trigger()
		lv.workers.checksums.trigger()
	}
	if err := lv.libvirtState.Follow(ctx, changed); err != nil {
		lv.log.complain(ctx, slog.LevelWarn, "looking at what libvirt has every ten seconds", err)
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
			changed()
		}
	}
}

// look looks once, and returns after how long to look again, 0 if
// something has to happen first.
func (lv *libvirtFollower) look(ctx context.Context, look *libvirtLook) (again time.Duration, err error) {
	state := lv.libvirtState.State()
	lv.networks.noteHost(fromLibvirt, unreadable(state)...)
	var nets []network.Network
	for _, m := range lv.networks.All() {
		if m.hasRules {
			nets = append(nets, m.net)
		}
	}
	if err := lv.moveBeside(ctx, state, nets, look); err != nil {
		return 0, err
	}
	if err := lv.note(ctx, state, nets, look); err != nil {
		return 0, err
	}
	if len(look.missing) > 0 && state.Running {
		look.pause = min(max(2*look.pause, lookPause), maxLookPause)
		again = look.pause
	} else {
		look.pause = 0
	}
	if len(nets) == 0 {
		return again, nil
	}
	var ours xtables.Variants
	if lv.rules.backend().Name() == choice.IPTables {
		ours = lv.backends.Variants()
	}
	report, err := lv.leftovers.Remove(ctx, nets, ours)
	if !report.Empty() {
		lv.log.Info("took out what libvirt left for networks that are governed here and that it has no longer", "removed", report.String())
	}
	if report.Again > 0 && (again == 0 || report.Again < again) {
		again = report.Again
	}
	return again, err
}

// has reports whether libvirt has a network too; m is nil for none.
func (lv *libvirtFollower) has(m *managed) bool {
	if m == nil {
		return false
	}
	_, has := lv.libvirtState.State().Of(m.net.Bridge)
	return has
}

// moveBeside has the iptables backend put networks that libvirt has got into
// chains of their own, and those that it gave up back into libvirt's.
func (lv *libvirtFollower) moveBeside(ctx context.Context, state libvirt.State, nets []network.Network, look *libvirtLook) error {
	var beside []string
	if lv.rules.backend().Name() == choice.IPTables {
		for _, n := range nets {
			if _, both := state.Beside(n.Bridge); both {
				beside = append(beside, n.Name)
			}
		}
		slices.Sort(beside)
	}
	if slices.Equal(beside, look.beside) {
		return nil
	}
	if lv.rules.backend().Name() == choice.IPTables {
		if _, err := lv.rules.sync(ctx); err != nil {
			return err
		}
	}
	look.beside = beside
	return nil
}

// note records which networks libvirt has too, and which of its own rules
// for them are not there. A libvirt that writes them again lacks them for a
// moment: they are missed when two looks in a row do not find them.
func (lv *libvirtFollower) note(ctx context.Context, state libvirt.State, nets []network.Network, look *libvirtLook) error {
	var theirs []network.Network
	for _, n := range nets {
		if has, ok := state.Of(n.Bridge); ok && has.Understood && len(iptables.Libvirts(has.Definition)) > 0 {
			theirs = append(theirs, has.Definition)
		}
	}
	lacks := make(map[string]string) // by bridge
	chains := true
	if len(theirs) > 0 {
		presence, err := lv.leftovers.Present(ctx, theirs)
		if err != nil {
			return err
		}
		for _, n := range theirs {
			if found, want, ok := presence.Complete(n); !ok {
				lacks[n.Bridge] = fmt.Sprintf("%d of its %d rules for network %s were found", found, want, n.Name)
			}
		}
		chains = presence.Chains
	}
	missing := make(map[string]bool, len(lacks))
	for _, m := range lv.networks.All() {
		has, ok := state.Of(m.net.Bridge)
		if !ok {
			lv.networks.note(m.net.Name, fromLibvirt)
			continue
		}
		fs := []finding.Finding{{
			ID:      finding.LibvirtHasNetwork,
			Summary: fmt.Sprintf("libvirt has the network too, as %s, and its own rules for bridge %s stay", has.Name, m.net.Bridge),
		}}
		if evidence, lacks := lacks[m.net.Bridge]; lacks {
			missing[m.net.Name] = true
			if look.missing[m.net.Name] {
				fs = append(fs, rulesMissing(m.net, has, state, chains, evidence))
			}
		}
		lv.networks.note(m.net.Name, fromLibvirt, fs...)
	}
	look.missing = missing
	return nil
}

// unreadable is that it is not known for certain what libvirt has.
func unreadable(state libvirt.State) []finding.Finding {
	if state.Err == nil {
		return nil
	}
	return []finding.Finding{{
		ID:       finding.LibvirtUnreadable,
		Summary:  "it is not known which networks libvirt has, so that none of its rules are taken for left behind",
		Evidence: state.Err.Error(),
		Remedy:   "look at the files in " + libvirt.RunDir + ", and delete what is not libvirt's",
	}}
}

// rulesMissing says how to have libvirt's rules again at once. Its daemon writes
// them again when told to reload, but makes its chains only when it starts.
func rulesMissing(n network.Network, has libvirt.Network, state libvirt.State, chains bool, evidence string) finding.Finding {
	f := finding.Finding{
		ID:       finding.LibvirtRulesMissing,
		Summary:  fmt.Sprintf("libvirt's own rules for bridge %s are not all there, so that its guests would miss them without this service", n.Bridge),
		Evidence: evidence,
	}
	name := finding.Quoted(has.Name)
	switch {
	case chains && state.Running:
		f.Remedy = fmt.Sprintf("`systemctl reload %s` has libvirt write them again, and so does the network's next start: "+
			"virsh net-destroy %s && virsh net-start %s", state.Unit, name, name)
	default:
		f.Remedy = fmt.Sprintf("`systemctl restart %s` has libvirt write them again", state.Unit)
	}
	return f
}
