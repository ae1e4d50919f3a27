package program

import (
	"maps"
	"sync"
	"time"
)

// startedFor is how long a process is remembered. What the kernel tells of it
// comes within milliseconds of its end; its ID may be another's long after.
const startedFor = 30 * time.Second

// Started remembers the processes that were started lately, so that what they
// did can be told from what others do. The zero value is ready to use.
type Started struct {
	mu sync.Mutex
	at map[int]time.Time
}

func (s *Started) add(pid int) {
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
	s.at[pid] = now
}

// Has reports whether a process was started by who uses Started.
func (s *Started) Has(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[pid]
	return ok && time.Since(at) <= startedFor
}
