package service

import (
	"slices"
	"testing"
	"time"
)

// begin is an arbitrary time: the current time is an argument of the logic.
var begin = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func TestFightPausesGrow(t *testing.T) {
	var f fight
	at, nft := begin, opponent{"nft", 812}
	var got []time.Duration
	for len(got) < 11 {
		f = f.repaired(at, nft)
		if len(got) == 0 || f.pause > 0 {
			got = append(got, f.pause)
		}
		at = at.Add(max(100*time.Millisecond, f.pause)) // undone at once, and repaired as soon as allowed
	}
	want := []time.Duration{0}
	for s := 1; s < 64; s *= 2 {
		want = append(want, time.Duration(s)*time.Second)
	}
	want = append(want, slices.Repeat([]time.Duration{time.Minute}, 4)...)
	if !slices.Equal(got, want) {
		t.Errorf("pauses are %v, want %v", got, want)
	}
}

func TestFightNeedsFiveRepairsInTenSeconds(t *testing.T) {
	for _, c := range []struct {
		every time.Duration
		on    bool
	}{{2 * time.Second, true}, {2400 * time.Millisecond, true}, {2500 * time.Millisecond, false}, {time.Minute, false}} {
		var f fight
		for i := range 20 {
			f = f.repaired(begin.Add(time.Duration(i)*c.every), opponent{})
		}
		if f.on() != c.on {
			t.Errorf("a repair every %v: a fight is %v, want %v", c.every, f.on(), c.on)
		}
		if c.on == f.due().IsZero() {
			t.Errorf("a repair every %v: the next is due at %v", c.every, f.due())
		}
	}
}

// TestFightIsNotAReload: a firewall that reloads its rules undoes several repairs,
// one after another; a few such reloads in a row are not a fight. A program that
// does not stop is named within the window, however far apart its acts are.
func TestFightIsNotAReload(t *testing.T) {
	var f fight
	for reload := range fightRepairs - 1 {
		for step := range 20 {
			f = f.repaired(begin.Add(time.Duration(reload)*2500*time.Millisecond+time.Duration(step)*100*time.Millisecond), opponent{})
		}
	}
	if f.on() {
		t.Errorf("%d reloads of twenty steps are a fight", fightRepairs-1)
	}
	for every := 20 * time.Millisecond; every < 2500*time.Millisecond; every += 10 * time.Millisecond {
		var f fight
		at := begin
		for ; !f.on() && at.Sub(begin) <= time.Minute; at = at.Add(every) {
			f = f.repaired(at, opponent{})
		}
		if took := at.Sub(begin) - every; took > fightWindow+actGap {
			t.Errorf("who undoes a repair every %v is named after %v", every, took)
		}
	}
}

func TestFightRemembersWhoWasNamed(t *testing.T) {
	f := fight{}.repaired(begin, opponent{"ufw", 7})
	if f = f.repaired(begin.Add(time.Second), opponent{}); f.by != (opponent{"ufw", 7}) {
		t.Errorf("after a repair of unknown cause the opponent is %v", f.by)
	}
	if f = f.repaired(begin.Add(2*time.Second), opponent{"nft", 8}); f.by != (opponent{"nft", 8}) {
		t.Errorf("the opponent is %v, want the last one", f.by)
	}
	if got := (opponent{}).String(); got != "another program" {
		t.Errorf("an unknown opponent is %q", got)
	}
}

// actEvery is short enough for a fight and long enough to count as separate acts.
const actEvery = 2200 * time.Millisecond

// fought makes n repairs after as many acts, and returns the time of the last one.
func fought(f fights, n int, things ...string) time.Time {
	for i := range n {
		f.repaired(begin.Add(time.Duration(i)*actEvery), opponent{"nft", 1}, things...)
	}
	return begin.Add(time.Duration(n-1) * actEvery)
}

func TestFightOverOneNetworkLeavesTheOthers(t *testing.T) {
	f := fights{}
	last := fought(f, fightRepairs, "a")
	if due := f.due([]string{"a"}); !due.Equal(last.Add(fightFirst)) {
		t.Errorf("a is due at %v, want a pause after %v", due, last)
	}
	for _, damaged := range [][]string{{"b"}, {"a", "b"}, {"b", "a"}} {
		if due := f.due(damaged); !due.IsZero() {
			t.Errorf("%v are due at %v, want at once", damaged, due)
		}
	}
	if on := f.repaired(last.Add(time.Second), opponent{}, "a", "b"); !slices.Equal(on, []string{"a"}) {
		t.Errorf("fought over are %v, want a", on)
	}
}

func TestFightEndsWhenItIsQuiet(t *testing.T) {
	f := fights{}
	last := fought(f, fightRepairs, "a", "b")
	over, ok := f.next()
	if want := last.Add(fightWindow); !ok || !over.Equal(want) {
		t.Fatalf("the fight is over at %v, %v, want %v", over, ok, want)
	}
	if ended := f.end(over.Add(-1), nil); ended != nil {
		t.Errorf("%v ended too early", ended)
	}
	if ended := f.end(over, []string{"b"}); !slices.Equal(ended, []string{"a"}) {
		t.Errorf("%v ended, want a: b is damaged", ended)
	}
	if !f["b"].on() || f["a"].on() {
		t.Errorf("what is left is %v", f)
	}
	if ended := f.end(over, nil); !slices.Equal(ended, []string{"b"}) {
		t.Errorf("%v ended, want b", ended)
	}
	if _, ok := f.next(); ok || len(f) != 0 {
		t.Errorf("%v is left", f)
	}
	// Another five make it a fight again.
	if on := f.repaired(over, opponent{}, "a"); on != nil {
		t.Errorf("one repair after the end is a fight over %v", on)
	}
}

// TestFewRepairsAreForgotten checks that this needs no timer: there is no fight to end.
func TestFewRepairsAreForgotten(t *testing.T) {
	f := fights{}
	last := fought(f, fightRepairs-1, "a")
	if at, ok := f.next(); ok {
		t.Errorf("a timer is wanted for %v", at)
	}
	if ended := f.end(last.Add(fightWindow), nil); ended != nil || len(f) != 0 {
		t.Errorf("%v ended, and %v is left", ended, f)
	}
}

// TestAnEndedPauseOutlastsItself: a program that undoes a repair once a minute is
// still fighting.
func TestAnEndedPauseOutlastsItself(t *testing.T) {
	f := fights{}
	at := begin
	for range 20 {
		f.repaired(at, opponent{}, "a")
		at = at.Add(max(actEvery, f["a"].pause))
	}
	if ended := f.end(at, nil); ended != nil || f["a"].pause != fightLongest {
		t.Errorf("%v ended after a pause of %v", ended, f["a"].pause)
	}
}

func TestBudgetIsAShareOfTheTime(t *testing.T) {
	const work, whole = 50 * time.Millisecond, 10 * time.Minute
	for fight, most := range map[bool]time.Duration{
		false: whole/answerShare + answerBurst/answerShare + work,
		true:  whole/fightShare + work,
	} {
		var b budget
		if wait := b.wait(begin, fight); wait != 0 {
			t.Errorf("at the beginning it waits %v", wait)
		}
		now, worked := begin, time.Duration(0)
		for now.Sub(begin) < whole {
			now = now.Add(b.wait(now, fight) + work)
			b, worked = b.spend(now, work), worked+work
		}
		if worked > most || worked < most/2 {
			t.Errorf("in a fight: %v: it worked %v, want up to %v", fight, worked, most)
		}
		if wait := b.wait(now.Add(time.Minute), fight); wait != 0 {
			t.Errorf("after a rest it waits %v", wait)
		}
	}
}
