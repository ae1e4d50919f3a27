package service

import (
	"context"
	"errors"
	"log/slog"

	"github.com/virtfirewalld/virtfirewalld/systemd"
)

// fields are what each line of the log about a network has.
func (m *managed) fields(cause string) []any {
	return []any{"network", m.net.Name, "bridge", m.net.Bridge, "backend", m.backend, "cause", cause}
}

// report logs what became of a network, a line for each change that matters to
// whoever reads the journal.
func (ns *networks) report(t transition, cause string) {
	m := t.next
	if m == nil {
		m = t.old
	}
	if t.next == nil {
		ns.states.forget(t.name())
	}
	what := t.summary()
	if what == "" {
		return
	}
	level, attrs := slog.LevelInfo, m.fields(cause)
	if st := m.status(); t.old == nil && st.State != StateActive {
		level, attrs = st.level(), append(attrs, st.stateFields()...)
	}
	ns.log.Log(context.Background(), level, what, attrs...)
}

// repaired logs that a network needed repair, and sends clients the event.
func (ns *networks) repaired(name, cause string) {
	attrs := []any{"network", name, "cause", cause}
	if m, err := ns.known(name); err == nil {
		attrs = m.fields(cause)
	}
	ns.log.Info("repaired a network", append(attrs, systemd.MessageID(systemd.MessageRepaired))...)
	ns.notify(Repaired{Name: name, Cause: cause})
}

// logger is the service's log.
type logger struct{ *slog.Logger }

// complain logs why something in the background failed, unless the service was
// told to stop in the middle of it: what is left to do then the next start does.
func (l logger) complain(ctx context.Context, level slog.Level, what string, err error, attrs ...any) {
	if !errors.Is(ctx.Err(), context.Canceled) {
		l.Log(ctx, level, what, append(attrs, "error", err)...)
	}
}

// failure is how the last look at something ended.
type failure struct {
	failed bool
	logged string // the complaint: the next look may well fail like this one
}

// then is how the look after it ended. It complains of a failure that is not the
// first, for a moment in which others change all rules passes, and that was not
// logged already.
func (f failure) then(ctx context.Context, err error, complain func(cause string)) failure {
	if err == nil || ctx.Err() != nil {
		return failure{}
	}
	if f.failed && err.Error() != f.logged {
		complain(err.Error())
		f.logged = err.Error()
	}
	f.failed = true
	return f
}
