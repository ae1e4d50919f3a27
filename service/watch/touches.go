package watch

import (
	"fmt"
	"strings"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// maxTouches bounds what is queued before it is taken; more would make no
// difference, since the table is checked anyway.
const maxTouches = 64

// TableID identifies a table of nf_tables.
type TableID struct {
	Family byte // such as unix.NFPROTO_INET
	Name   string
}

// Touch is a change of a table by another program. Program is empty if it is unknown
// or notifications were lost: then the table may have been changed.
type Touch struct {
	Table   TableID
	Program string // the kernel's name of its thread, at most 15 bytes: "nft", "iptables"
	PID     int    // of its thread, in the first PID namespace
	Port    uint32 // its netlink port: of most programs the process's ID in its own PID namespace
}

// String returns the program for messages: nft (pid 812).
func (t Touch) String() string {
	if t.Program == "" {
		return "another program"
	}
	return fmt.Sprintf("%s (pid %d)", strings.ToValidUTF8(t.Program, "?"), t.PID)
}

// Touches holds the changes of a subscriber's tables. It is safe for concurrent use.
type Touches struct {
	of      *Tables
	tables  map[TableID]bool
	touched chan struct{}

	mu       sync.Mutex
	gathered map[Touch]bool
	order    []Touch
}

// Touched returns a channel that receives a value when there is something to take.
// Several changes before it is read are reported once.
func (s *Touches) Touched() <-chan struct{} { return s.touched }

// Take returns the changes since the last call, in order, the same by the same
// program once.
func (s *Touches) Take() []Touch {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.order
	s.order = nil
	clear(s.gathered)
	return out
}

// Close ends the subscription.
func (s *Touches) Close() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	delete(s.of.subscribers, s)
}

func (s *Touches) add(t Touch) {
	s.mu.Lock()
	if !s.gathered[t] && len(s.order) < maxTouches {
		s.gathered[t] = true
		s.order = append(s.order, t)
	}
	s.mu.Unlock()
	select {
	case s.touched <- struct{}{}:
	default:
	}
}

// tableOf returns the table that a message is about. Its name is attribute 1 in the
// messages of all kinds of objects (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and so on).
func tableOf(data []byte) (TableID, bool) {
	const tableName = 1
	body := nfnl.Body(data)
	return TableID{data[0], body.Text(tableName)}, body.Has(tableName)
}
