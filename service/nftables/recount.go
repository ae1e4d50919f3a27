package nftables

import (
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// recount has what no longer counts counted as earlier, for each network: its totals
// stay what the table that was read says, and are not below what clients saw.
func (s *syncer) recount(had *observed, stays func(elementKey) bool) (out []recount) {
	stale := s.stale(had)
	for name, in := range s.next {
		start := s.b.startValues(name)
		have, values, exist := map[ruleset.Counts]ruleset.Total{}, map[ruleset.Counts]ruleset.Total{}, earlier{}
		for _, what := range ruleset.AllCounts() {
			named := had.counters[in.names.Counter(what)]
			rules := ruleset.Total{Packets: named.packets, Bytes: named.bytes}
			c, there := had.counters[in.names.Earlier(what)]
			have[what] = ruleset.Total{Packets: c.packets, Bytes: c.bytes}
			if there {
				exist[what] = true
			}
			total := sum(sum(have[what], rules), stale[in.comment(what)])
			var left ruleset.Total
			if s.o.exists && slices.Contains(in.part.Counters, in.names.Counter(what)) {
				left = rules
			}
			for _, e := range in.counting {
				if e.what != what {
					continue
				}
				total = sum(total, had.totals[e.elementKey])
				if stays(e.elementKey) {
					left = sum(left, had.totals[e.elementKey])
				}
			}
			values[what] = without(highest(total, start.Of(what)), left)
		}
		if !s.o.exists { // the table is made anew
			exist, have = nil, nil
		}
		var list []recount
		list, in.earlier = exist.recounts(name, values, have)
		s.next[name] = in
		out = append(out, list...)
	}
	return out
}

// comment identifies the elements of a network that count the same.
func (in installed) comment(what ruleset.Counts) countedKey {
	if len(in.part.Elements) == 0 {
		return countedKey{}
	}
	return countedKey{cut(in.part.Elements[0].Comment), what}
}

type countedKey struct {
	comment string
	what    ruleset.Counts
}

// stale returns what elements have counted that no network has any more, by the network
// that their comments name.
func (s *syncer) stale(had *observed) map[countedKey]ruleset.Total {
	wanted := make(map[elementKey]bool)
	for _, in := range s.next {
		for _, e := range in.counting {
			wanted[e.elementKey] = true
		}
	}
	out := make(map[countedKey]ruleset.Total)
	for key, total := range had.totals {
		if !wanted[key] {
			k := countedKey{had.elements[key].comment, s.b.planner.sets[key.set].Counts}
			out[k] = sum(out[k], total)
		}
	}
	return out
}
