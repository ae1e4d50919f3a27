package program

import (
	"maps"
	"sync"
	"time"
)

// startedFor is how long a process is recorded. The kernel's notifications arrive
// within milliseconds of its end; much later its ID may be another's.
const startedFor = 30 * time.Second

// Started records recently started processes, so that their changes can be
// distinguished from other programs'. The zero value is ready to use.
type Started struct {
	mu sync.Mutex
	at map[int]time.Time
}

// Add records a process by its ID, or a netlink socket of the service's own by its port:
// a program's port is its process ID, most often.
func (s *Started) Add(id int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = make(map[int]time.Time)
	}
	now := time.Now()
	maps.DeleteFunc(s.at, func(_ int, at time.Time) bool { return now.Sub(at) > startedFor })
	s.at[id] = now
}

// Has reports whether a process was recorded.
func (s *Started) Has(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[pid]
	return ok && time.Since(at) <= startedFor
}
