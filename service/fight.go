package service

import (
	"slices"
	"time"
)

const (
	// fightRepairs of one thing within fightWindow are a fight: another program
	// undoes each repair. What is put right once is not.
	fightRepairs = 5
	fightWindow  = 10 * time.Second
	// actGap is how soon a repair follows another that is one with it: a
	// firewall's reload or restart undoes several, table after table. What goes on
	// like that for fightWindow is a fight too.
	actGap = 1250 * time.Millisecond
	// fightFirst is the pause before the next repair in a fight. Each later one
	// is twice as long, up to fightLongest.
	fightFirst   = time.Second
	fightLongest = time.Minute
)

// opponent is the program that undid a repair, as far as it is known.
type opponent struct {
	Program string // "" for unknown
	PID     int
}

// String names the program without its process ID, which of an opponent that
// is run again and again is another one each time.
func (o opponent) String() string {
	if o.Program == "" {
		return "another program"
	}
	return o.Program
}

// fight is what is remembered of the repairs of one thing. The zero value is a
// thing that was never repaired. A fight is a value: repaired returns the next.
type fight struct {
	recent []time.Time // when the last acts were first repaired, the newest last
	latest time.Time   // the last repair of all
	pause  time.Duration
	by     opponent // the last one that is known
}

// repaired returns the fight after a repair of what an opponent undid.
func (f fight) repaired(at time.Time, by opponent) fight {
	next := fight{recent: f.recent, latest: at, pause: f.pause, by: f.by}
	if by.Program != "" || next.by.Program == "" {
		next.by = by
	}
	same := at.Sub(f.latest) < actGap
	if !f.on() && same && at.Sub(f.last()) < fightWindow {
		return next
	}
	old := func(t time.Time) bool { return at.Sub(t) >= fightWindow }
	next.recent = append(slices.DeleteFunc(slices.Clone(f.recent), old), at)
	switch {
	case f.on():
		next.pause = min(2*f.pause, fightLongest)
	case same || len(next.recent) >= fightRepairs:
		next.pause = fightFirst
	}
	return next
}

// explained returns the fight after what was repaired turned out to be a reload
// that its program announces. A fight goes on.
func (f fight) explained() fight {
	if f.on() {
		return f
	}
	return fight{}
}

// on reports whether the repairs are a fight.
func (f fight) on() bool { return f.pause > 0 }

// due is when the thing may be repaired again; the zero time for at once.
func (f fight) due() time.Time {
	if !f.on() {
		return time.Time{}
	}
	return f.latest.Add(f.pause)
}

// over is when the fight is over, or its first repairs are forgotten, provided
// that the thing stays as it is until then.
func (f fight) over() time.Time { return f.latest.Add(max(2*f.pause, fightWindow)) }

// last is when the last act was first repaired; the zero time for none.
func (f fight) last() time.Time {
	if len(f.recent) == 0 {
		return time.Time{}
	}
	return f.recent[len(f.recent)-1]
}

// fights are the fights over several things, by name: the networks whose rules
// are repaired. A loop that repairs has its own and asks it alone.
type fights map[string]fight

// repaired notes a repair of things and reports which of them are fought over.
func (f fights) repaired(at time.Time, by opponent, things ...string) (fought []string) {
	for _, thing := range things {
		f[thing] = f[thing].repaired(at, by)
		if f[thing].on() {
			fought = append(fought, thing)
		}
	}
	return fought
}

// due is when the first of some damaged things may be repaired; the zero time
// for at once. It does not wait for the others: a fight over one network does not
// keep another from being repaired.
func (f fights) due(things []string) time.Time {
	var first time.Time
	for i, thing := range things {
		if due := f[thing].due(); i == 0 || due.Before(first) {
			first = due
		}
	}
	return first
}

// end forgets what is over, but for things that are damaged, and returns those
// of them that were fought over.
func (f fights) end(now time.Time, damaged []string) (ended []string) {
	for thing, one := range f {
		if now.Before(one.over()) || slices.Contains(damaged, thing) {
			continue
		}
		if one.on() {
			ended = append(ended, thing)
		}
		delete(f, thing)
	}
	slices.Sort(ended)
	return ended
}

// brewing reports whether there is a fight, or were several repairs of one thing that
// may become one.
func (f fights) brewing(now time.Time) bool {
	for _, one := range f {
		if (one.on() || len(one.recent) > 1) && now.Before(one.over()) {
			return true
		}
	}
	return false
}

// next returns when a fight is over unless the last repair is undone; ok is false
// where there is no fight, so that a service at rest needs no timer.
func (f fights) next() (at time.Time, ok bool) {
	for _, one := range f {
		if over := one.over(); one.on() && (!ok || over.Before(at)) {
			at, ok = over, true
		}
	}
	return at, ok
}
