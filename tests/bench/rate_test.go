package main

import (
	"strings"
	"testing"
)

func TestSeries(t *testing.T) {
	for want, s := range map[string]series{
		"2.000 (1.000 to 9.000)": {9, 1, 2},
		"2.500 (1.000 to 9.000)": {9, 3, 1, 2},
	} {
		if got := s.String(); got != want {
			t.Errorf("%v is %q, want %q", []float64(s), got, want)
		}
	}
}

func TestRatiosAreOfOneRound(t *testing.T) {
	out, in := ratios([]rates{{1, 2}, {8, 9}}, []rates{{2, 2}, {4, 3}})
	if out[0] != 0.5 || out[1] != 2 || in[0] != 1 || in[1] != 3 {
		t.Errorf("out %v, in %v", out, in)
	}
}

func TestOnlyOursHasLimits(t *testing.T) {
	bare, one, all := rates{100, 100}, rates{96, 94}, rates{96, 96}
	var s section
	compare(&s, []*lane{
		{name: "no rules", rounds: []rates{{50, 50}}},
		{name: bareLane, rounds: []rates{bare}},
		{name: oneLane, rounds: []rates{one}},
		{name: manyLane, rounds: []rates{all}},
	})
	var missed []string
	for _, r := range s.rows {
		if r.missed {
			missed = append(missed, r.what)
		}
	}
	if got := strings.Join(missed, "; "); got != oneLane {
		t.Errorf("missed: %q, want %q", got, oneLane)
	}
}
