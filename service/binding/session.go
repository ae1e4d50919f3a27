package binding

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

const (
	// patience is how long firewalld may leave a question unanswered before calls
	// no longer wait for a session.
	patience = 900 * time.Millisecond
	// waitPause is how often a call that waits for a session looks at that.
	waitPause = 20 * time.Millisecond
	// busyLimit is how long rules wait for a firewalld that is busy.
	busyLimit = 2 * time.Second
)

// ErrUnresponsive is why a call does not wait for firewalld.
var ErrUnresponsive = errors.New("firewalld does not answer: it is busy or stuck, see `systemctl status firewalld` and restart it if need be")

// IsSilence reports whether an error is that firewalld did not answer, be it now
// or before.
func IsSilence(err error) bool { return zones.IsSilence(err) || errors.Is(err, ErrUnresponsive) }

// Session is the right to speak with firewalld, which one caller has at a time. It
// lasts as long as firewalld takes for its answers. A session may wait for the
// change lock; whoever holds that lock never waits for a session.
type Session struct {
	b    *Binder
	held bool
	call bool            // a call waits for the end of it
	have zones.Installed // what firewalld has, as long as err is nil
	err  error           // why it cannot be asked any more
	left map[string]bool // bridges that were taken out of their zones
	// stuck are those of them that are in their zones until firewalld answers.
	stuck map[string]bool
}

func (b *Binder) newSession() *Session {
	return &Session{b: b, left: map[string]bool{}, stuck: map[string]bool{}}
}

// None returns the session of a change that firewalld has no part in.
func (b *Binder) None() *Session {
	s := b.newSession()
	s.err = ErrUnresponsive
	return s
}

// TryBegin waits for a session, but not for a firewalld that does not answer: then
// the session is one in which nothing can be asked.
func (b *Binder) TryBegin(ctx context.Context) *Session {
	s := b.newSession()
	s.call = true
	look := time.NewTicker(waitPause)
	defer look.Stop()
	for {
		if b.unresponsive() {
			b.Retry() // which finds out when it answers again
			s.err = ErrUnresponsive
			return s
		}
		select {
		case b.session <- struct{}{}:
			s.held = true
			s.Look(ctx)
			return s
		case <-ctx.Done():
			s.err = fmt.Errorf("waiting to speak with firewalld: %w", ctx.Err())
			return s
		case <-look.C:
		}
	}
}

// Begin waits for a session as long as ctx lasts, and asks firewalld in any case.
func (b *Binder) Begin(ctx context.Context) (*Session, error) {
	select {
	case b.session <- struct{}{}:
		s := b.newSession()
		s.held = true
		s.Look(ctx)
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to speak with firewalld: %w", ctx.Err())
	}
}

// unresponsive reports whether firewalld has not answered for so long that calls
// must not wait for it.
func (b *Binder) unresponsive() bool { return b.cfg.Zones.Unanswered() >= patience }

// AwaitIdle waits until firewalld is done with what it is doing, be it a reload, but
// not for long, and not at all for one that is unresponsive or not running.
//
// In a reload firewalld calls ebtables-restore, which up to 1.8.9 fails where
// another program changes nf_tables at the same time, and the reload with it. All
// that time firewalld itself drops what is forwarded, unless it is configured not to
// (ReloadPolicy).
func (b *Binder) AwaitIdle(ctx context.Context) {
	if b.unresponsive() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()
	_ = b.cfg.Zones.Answer(ctx) // whatever it is, no reason to wait is left
}

// AwaitAnswer waits until firewalld answers anything, so is done with a reload, as long
// as the context lasts. Without a firewalld it returns at once.
func (b *Binder) AwaitAnswer(ctx context.Context) { _ = b.cfg.Zones.Answer(ctx) }

// End lets the next session begin.
func (s *Session) End() {
	if s.held {
		s.held = false
		<-s.b.session
	}
}

// Held reports whether the session is one in which firewalld was asked.
func (s *Session) Held() bool { return s.held }

// Err returns why firewalld cannot be asked any more; nil where it can.
func (s *Session) Err() error { return s.err }

// Installed returns what firewalld has, as long as Err returns nil.
func (s *Session) Installed() zones.Installed { return s.have }

// Look reads again what firewalld has.
func (s *Session) Look(ctx context.Context) {
	s.have, s.err = s.b.cfg.Zones.Installed(s.Patient(ctx))
}

// Patient returns the context for a question: a call gives up once firewalld has
// not answered for some time.
func (s *Session) Patient(ctx context.Context) context.Context {
	if s.call {
		return zones.Impatient(ctx)
	}
	return ctx
}

// Note keeps a firewalld that fell silent from being asked again, and returns the
// error as it is.
func (s *Session) Note(err error) error {
	if zones.IsSilence(err) {
		s.err = err
	}
	return err
}

// Require returns an error where a network's zone, asked for by name, cannot be
// had.
func (s *Session) Require(zone, mode string) error {
	if s.err != nil {
		return s.err
	}
	_, err := zones.Choose(zone, mode, s.have)
	return err
}

// interfaces returns those that zones have, with the zone; none without firewalld.
func (s *Session) interfaces(ctx context.Context) (map[string]string, error) {
	if s.err != nil || !s.have.Running {
		return nil, s.err
	}
	bound, err := s.b.cfg.Zones.Interfaces(s.Patient(ctx))
	return bound, s.Note(err)
}

// move puts an interface into a zone, "" for none.
func (s *Session) move(ctx context.Context, iface, zone string) error {
	if s.err != nil {
		return s.err
	}
	if zone == "" {
		return s.Note(s.b.cfg.Zones.Unbind(s.Patient(ctx), "", iface))
	}
	return s.Note(s.b.cfg.Zones.BindAll(s.Patient(ctx), []zones.Binding{{Interface: iface, Zone: zone}})[0])
}

// moveBack puts an interface back where it was, as far as firewalld is there. With
// one that does not answer it is postponed.
func (s *Session) moveBack(ctx context.Context, iface, zone string) error {
	err := s.move(context.WithoutCancel(ctx), iface, zone)
	if errors.Is(err, zones.ErrNotRunning) {
		return nil
	}
	if err != nil {
		s.b.Postpone(iface, zone)
	}
	return err
}

// yield lets callers that wait for a session have one, and takes the next.
func (s *Session) yield(ctx context.Context) {
	<-s.b.session
	select {
	case s.b.session <- struct{}{}:
	case <-ctx.Done():
		s.held, s.err = false, fmt.Errorf("waiting to speak with firewalld again: %w", ctx.Err())
	}
}
