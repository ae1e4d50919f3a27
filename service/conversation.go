package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

const (
	// zonePatience is how long firewalld may leave a question unanswered before
	// others no longer wait for their turn to speak with it.
	zonePatience = 900 * time.Millisecond
	// turnPause is how often who waits for a turn looks at that.
	turnPause = 20 * time.Millisecond
)

// errMute is why a call does not wait for firewalld.
var errMute = errors.New("firewalld does not answer: it is busy or stuck, see `systemctl status firewalld` and restart it if need be")

// conversation is somebody's turn to speak with firewalld. There is one at a
// time, so that nobody undoes what another is at. It may last as long as
// firewalld takes for its answers: who holds the lock on changes never waits
// for one, who has one may wait for the lock.
type conversation struct {
	s    *Service
	held bool
	// calling says that a call waits for the end of it.
	calling bool
	have    zones.Installed // what firewalld has, as long as err is nil
	err     error           // why it cannot be asked any more
	left    map[string]bool // bridges that were taken out of their zones
	// stuck are those of them that are in their zones until firewalld answers.
	stuck map[string]bool
}

// patient is the context for a question: a call gives up once firewalld has
// said nothing for zonePatience.
func (c *conversation) patient(ctx context.Context) context.Context {
	if c.calling {
		return zones.Impatient(ctx)
	}
	return ctx
}

func (s *Service) talk() *conversation {
	return &conversation{s: s, left: map[string]bool{}, stuck: map[string]bool{}}
}

// mute reports whether firewalld has not answered for so long that calls must not
// wait for it.
func (s *Service) mute() bool { return s.Zones.Unanswered() >= zonePatience }

// idleTalk is the conversation of a change that firewalld has no part in.
func (s *Service) idleTalk() *conversation {
	c := s.talk()
	c.err = errMute
	return c
}

// converse waits for a turn, but not for a firewalld that does not answer:
// then the conversation is one in which nothing can be asked.
func (s *Service) converse(ctx context.Context) *conversation {
	c := s.talk()
	c.calling = true
	look := time.NewTicker(turnPause)
	defer look.Stop()
	for {
		if s.mute() {
			s.outside.trigger() // somebody has to find out when it answers again
			c.err = errMute
			return c
		}
		select {
		case s.zoning <- struct{}{}:
			c.held = true
			c.look(ctx)
			return c
		case <-ctx.Done():
			c.err = fmt.Errorf("waiting to speak with firewalld: %w", ctx.Err())
			return c
		case <-look.C:
		}
	}
}

// insist waits for a turn as long as ctx lasts, and asks in any case.
func (s *Service) insist(ctx context.Context) (*conversation, error) {
	select {
	case s.zoning <- struct{}{}:
		c := s.talk()
		c.held = true
		c.look(ctx)
		return c, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to speak with firewalld: %w", ctx.Err())
	}
}

func (c *conversation) end() {
	if c.held {
		c.held = false
		<-c.s.zoning
	}
}

// look reads anew what firewalld has.
func (c *conversation) look(ctx context.Context) {
	c.have, c.err = c.s.Zones.Installed(c.patient(ctx))
}

// note keeps a firewalld that fell silent from being asked again, and gives
// the error back.
func (c *conversation) note(err error) error {
	if zones.IsSilence(err) {
		c.err = err
	}
	return err
}

// interfaces are those that zones have, with the zone; none without firewalld.
func (c *conversation) interfaces(ctx context.Context) (map[string]string, error) {
	if c.err != nil || !c.have.Running {
		return nil, c.err
	}
	bound, err := c.s.Zones.Interfaces(c.patient(ctx))
	return bound, c.note(err)
}

// move puts a bridge into a zone, "" for none.
func (c *conversation) move(ctx context.Context, iface, zone string) error {
	if c.err != nil {
		return c.err
	}
	if zone == "" {
		return c.note(c.s.Zones.Unbind(c.patient(ctx), "", iface))
	}
	return c.note(c.s.Zones.BindAll(c.patient(ctx), []zones.Binding{{Interface: iface, Zone: zone}})[0])
}

// moveBack puts a bridge back where it was, as far as firewalld is there. From
// one that does not answer it is owed.
func (c *conversation) moveBack(ctx context.Context, iface, zone string) error {
	err := c.move(context.WithoutCancel(ctx), iface, zone)
	if errors.Is(err, zones.ErrNotRunning) {
		return nil
	}
	if err != nil {
		c.s.owe(iface, zone)
	}
	return err
}

// leave takes the bridge of a change out of a zone that it leaves for good. A
// firewalld that does not answer is no reason to fail: it is stuck then.
func (c *conversation) leave(ctx context.Context, t transition, undo *undoStack) error {
	iface, zone := t.old.iface(), t.old.zone.bound
	err := c.err
	if err == nil && t.old.zone.unseen {
		var bound map[string]string
		bound, err = c.interfaces(ctx)
		zone = bound[iface]
	}
	if err == nil {
		undo.add(func() error { return c.moveBack(ctx, iface, zone) })
		err = c.move(ctx, iface, "")
	}
	c.stuck[iface] = isSilence(err)
	if err != nil && !c.stuck[iface] && !errors.Is(err, zones.ErrNotRunning) {
		return zoneError("", "", fmt.Errorf("taking %s out of zone %s: %w", iface, zone, err))
	}
	c.left[iface] = true
	return nil
}

// enter puts a network's bridge into the zone that it should be in, and gives
// what came of it. For a zone that the client asked for by name a failure is
// an error; otherwise the rules hold all the same, and the network says that it
// is degraded.
func (c *conversation) enter(ctx context.Context, t transition, undo *undoStack) (zoneState, error) {
	m := t.next
	if m.bridge.stray != "" {
		return m.zone, nil
	}
	if c.err != nil && t.keepsZone() {
		return m.zone, nil
	}
	before, err := c.before(ctx, t)
	zone := ""
	if err == nil && m.zone.unseen {
		seen := *m
		seen.zone = m.found(before, c.have)
		m = &seen
	}
	if err == nil {
		zone, err = m.zoneIn(c.have)
	}
	if err == nil && zone == "" && !m.concernsZones() {
		zone = before
	}
	if err == nil && zone != before { // and so c.err is nil
		refused := false
		undo.add(func() error {
			if refused && before == "" {
				return nil // firewalld itself says that it did nothing
			}
			return c.moveBack(ctx, m.iface(), before)
		})
		err = c.move(ctx, m.iface(), zone)
		refused = zones.IsRefusal(err)
	}
	switch {
	case err != nil && t.zoneAsked:
		return m.zone, zoneError(m.iface(), zone, err)
	case err != nil:
		p := &place{m: m, was: m.zone, seen: before, err: err, asked: zones.IsSilence(err) || c.s.debts.has(m.iface())}
		c.s.complainOfZones([]*place{p})
		return p.state(), nil
	}
	return m.inside(zone, c.have), nil
}

// keepsZone reports whether a change has nothing to do with the zone that the
// network's bridge is in.
func (t transition) keepsZone() bool {
	return t.old != nil && t.old.net.Bridge == t.next.net.Bridge && t.old.net.Mode == t.next.net.Mode &&
		t.old.net.Zone == t.next.net.Zone && t.old.zone == t.next.zone && !t.zoneAsked
}

// before is the zone that the bridge of a change is in. Of one that is new to
// the service it matters only where the change can fail and has to put it back:
// firewalld is slow to ask.
func (c *conversation) before(ctx context.Context, t transition) (string, error) {
	if c.err != nil {
		if !t.next.concernsZones() {
			return t.next.zone.bound, nil
		}
		return t.next.zone.bound, c.err
	}
	if t.old != nil && t.old.net.Bridge == t.next.net.Bridge {
		switch {
		case t.leavesZone():
			return "", nil
		case t.old.zone.unseen:
			bound, err := c.interfaces(ctx)
			return bound[t.next.iface()], err
		}
		return t.old.zone.bound, nil
	}
	if !t.zoneAsked {
		return "", nil
	}
	bound, err := c.interfaces(ctx)
	return bound[t.next.iface()], err
}
