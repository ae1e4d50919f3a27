package service

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

const (
	// chainsQuiet is how long nothing is to happen before a comparison, so that
	// a script which flushes table after table comes to its end, and chainsMost
	// is what that may take at most.
	chainsQuiet = 30 * time.Millisecond
	chainsMost  = 100 * time.Millisecond
	// answerShare keeps comparisons that other programs cause to one part in so
	// many of a processor, once half a second was used, which answerBurst makes
	// up for. In a fight it is fightShare from the beginning.
	answerShare = 20
	answerBurst = answerShare * 500 * time.Millisecond
	fightShare  = 40
)

// followChains puts rules back that another program took out of iptables, while
// iptables holds them. With the other backend nothing is watched.
func (rs *rules) followChains(ctx context.Context) {
	k := &chainFollower{rules: rs}
	defer k.close()
	for {
		k.watch(ctx)
		select {
		case <-ctx.Done():
			return
		case <-rs.moving:
			continue
		case <-k.nft:
			if !k.take() {
				continue
			}
		case <-k.legacy:
			k.called = true
		case <-alarm(k.again):
		}
		if k.gather(ctx) {
			if k.mayBeReload() {
				rs.binder.AwaitIdle(ctx)
			}
			k.compare(ctx)
		}
	}
}

// chainFollower is the state of followChains.
type chainFollower struct {
	rules       *rules
	variants    xtables.Variants // that are watched; none while the zero value
	open        ChainWatch
	nft, legacy <-chan struct{}

	touches []watch.Touch // since all was right, the last one of each program
	called  bool          // iptables-legacy, since all was right
	used    budget
	fight   bool      // another program undoes repairs
	again   time.Time // when to compare without an event; the zero time for never
}

// watch makes the watch that of the backend which holds the rules. What was
// done before it was there is found by a comparison.
func (k *chainFollower) watch(ctx context.Context) {
	var variants xtables.Variants
	if k.rules.backend().Name() == choice.IPTables {
		variants = k.rules.backends.Variants()
	}
	if variants == k.variants {
		return
	}
	k.close()
	if variants == (xtables.Variants{}) {
		return
	}
	open, err := k.rules.chains.Watch(variants)
	if err != nil {
		k.rules.log.complain(ctx, slog.LevelError, "changes of iptables' rules are seen at the next reapply only", err)
	} else {
		k.open, k.nft, k.legacy = open, open.NFT(), open.Legacy()
	}
	k.variants, k.again = variants, time.Now()
}

func (k *chainFollower) close() {
	if k.open != nil {
		if err := k.open.Close(); err != nil {
			k.rules.log.Warn("ending the watch of iptables", "error", err)
		}
	}
	*k = chainFollower{rules: k.rules, used: k.used}
}

// take notes changes of nf_tables, and reports whether there were any by others.
func (k *chainFollower) take() bool {
	foreign := k.open.Take()
	k.touches = lastTouches(k.touches, foreign)
	return len(foreign) > 0
}

// gather waits until nothing happens any more and there is time for a
// comparison; false where the service ends first.
func (k *chainFollower) gather(ctx context.Context) bool {
	most := time.After(max(chainsMost, k.used.wait(time.Now(), k.fight)))
	for {
		select {
		case <-ctx.Done():
			return false
		case <-most:
			return true
		case <-time.After(max(chainsQuiet, k.used.wait(time.Now(), k.fight))):
			return true
		case <-k.nft:
			k.take()
		case <-k.legacy:
			k.called = true
		}
	}
}

// mayBeReload reports whether the changes may be those of a reload of firewalld's,
// which calls iptables-restore and its like. Of a program that has ended before it
// was looked up no name is known. A repair with the legacy variant disturbs no
// reload.
func (k *chainFollower) mayBeReload() bool {
	return slices.ContainsFunc(k.touches, func(t watch.Touch) bool {
		return t.Program == "" || strings.Contains(t.Program, "tables-resto") // the kernel keeps 15 characters
	})
}

// compare looks at the rules and puts them back.
func (k *chainFollower) compare(ctx context.Context) {
	by, cause := k.culprit()
	k.rules.lock.during(ctx, func(ctx context.Context) {
		if k.rules.active.Name() != choice.IPTables {
			k.again = time.Time{}
			return
		}
		before := processorTime()
		k.again = k.rules.answer(ctx, by, cause)
		k.used = k.used.spend(time.Now(), processorTime()-before)
		_, k.fight = k.rules.repairs.fights.next()
		if k.rules.repairs.whole() {
			k.touches, k.called = nil, false
		}
	})
}

// culprit names the programs that may have changed the rules.
func (k *chainFollower) culprit() (opponent, string) {
	const did = " had changed or flushed its rules"
	if len(k.touches) == 0 && k.called {
		legacy := xtables.Name(false, xtables.VariantLegacy)
		return opponent{Program: "a program that calls " + legacy}, "another program, which called " + legacy + "," + did
	}
	by := opponentOf(k.touches)
	if by.Program == "" {
		return by, by.String() + did
	}
	return by, fmt.Sprintf("another program, %s,%s", culprits(k.touches), did)
}

// processorTime is what the service and the programs that it ran have had of the
// processors: on a busy host a comparison lasts long and costs little.
func processorTime() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var used unix.Rusage
		if unix.Getrusage(who, &used) == nil { // it cannot fail
			sum += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		}
	}
	return sum
}

// budget bounds what comparisons that others cause take of the processors. It is
// a value.
type budget struct {
	paid time.Time // when all that was used is made up for
	next time.Time // when the next one may come in a fight
}

// spend returns the budget after work of a length.
func (b budget) spend(at time.Time, work time.Duration) budget {
	if b.paid.Before(at) {
		b.paid = at
	}
	return budget{b.paid.Add(answerShare * work), at.Add(fightShare * work)}
}

// wait returns how long it takes until there is something to spend.
func (b budget) wait(now time.Time, fight bool) time.Duration {
	free := b.paid.Add(-answerBurst)
	if fight {
		free = b.next
	}
	if now.Before(free) {
		return free.Sub(now)
	}
	return 0
}
