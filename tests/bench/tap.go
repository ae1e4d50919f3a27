package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const firewalldName = "org.fedoraproject.FirewallD1"

// exchange is a call and its answer, as they passed the bus.
type exchange struct {
	member        string
	called, ended time.Time
	ofFirewalld   bool // it asked firewalld, and the one who is listened to asked
}

// tap hears all that passes the bus: who waited for whom, and for how long.
type tap struct {
	conn  *godbus.Conn
	asker string // the unique name of the program that asks firewalld; "" for any
	bed   string // that of the measurement itself, which does not count

	mu       sync.Mutex
	open     map[string]*exchange
	done     []*exchange
	reloaded time.Time
	owner    chan struct{} // closed when the listener has ended
}

// listen begins to hear what the program of a name on the bus asks firewalld, ""
// for any program; Close ends it.
func (b *bed) listen(program string) (*tap, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	conn, err := b.DialBus(context.Background())
	if err != nil {
		return nil, err
	}
	t := &tap{conn: conn, bed: b.bus.Names()[0], open: map[string]*exchange{}, owner: make(chan struct{})}
	if program != "" {
		err = b.bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, program).Store(&t.asker)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("finding %s: %w", program, err)
	}
	err = conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.Monitoring.BecomeMonitor", 0, []string{}, uint32(0)).Err
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("listening to the bus: %w", err)
	}
	messages := make(chan *godbus.Message, 4096) // takes the answer away too, once it listens
	conn.Eavesdrop(messages)
	go t.run(messages)
	return t, nil
}

// Close ends the listening.
func (t *tap) Close() {
	t.conn.Close()
	<-t.owner
}

func (t *tap) run(messages <-chan *godbus.Message) {
	defer close(t.owner)
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return
			}
			t.hear(m, time.Now())
		case <-t.conn.Context().Done():
			return
		}
	}
}

func (t *tap) hear(m *godbus.Message, now time.Time) {
	text := func(f godbus.HeaderField) string { s, _ := m.Headers[f].Value().(string); return s }
	t.mu.Lock()
	defer t.mu.Unlock()
	switch m.Type {
	case godbus.TypeMethodCall:
		to, from := text(godbus.FieldDestination), text(godbus.FieldSender)
		asks := to == firewalldName && (from == t.asker || (t.asker == "" && from != t.bed))
		if to == managerName || asks {
			t.open[fmt.Sprint(from, m.Serial())] = &exchange{
				member: text(godbus.FieldMember), called: now, ofFirewalld: asks,
			}
		}
	case godbus.TypeMethodReply, godbus.TypeError:
		serial, _ := m.Headers[godbus.FieldReplySerial].Value().(uint32)
		key := fmt.Sprint(text(godbus.FieldDestination), serial)
		if x := t.open[key]; x != nil {
			x.ended = now
			t.done = append(t.done, x)
			delete(t.open, key)
		}
	case godbus.TypeSignal:
		if text(godbus.FieldMember) == "Reloaded" && text(godbus.FieldInterface) == firewalldName {
			t.reloaded = now
		}
	}
}

// take returns what has passed since the last call.
func (t *tap) take() []*exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	done := t.done
	t.done = nil
	return done
}

// lastReload returns when firewalld signalled its last reload.
func (t *tap) lastReload() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reloaded
}

// waited returns how much of the time between from and to the asker waited for
// firewalld: calls that overlap count once.
func waited(all []*exchange, from, to time.Time) time.Duration {
	var calls []*exchange
	for _, x := range all {
		if x.ofFirewalld && x.called.Before(to) && x.ended.After(from) {
			calls = append(calls, x)
		}
	}
	slices.SortFunc(calls, func(a, b *exchange) int { return a.called.Compare(b.called) })
	var sum time.Duration
	until := from
	for _, x := range calls {
		begin, end := x.called, x.ended
		if begin.Before(until) {
			begin = until
		}
		if end.After(to) {
			end = to
		}
		if end.After(begin) {
			sum += end.Sub(begin)
			until = end
		}
	}
	return sum
}
