package zones_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// TestManyBindingsEndWithTheFirstSilence: hundreds of calls that time out one
// after another would keep the caller waiting for minutes.
func TestManyBindingsEndWithTheFirstSilence(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	c.SetTimeouts(50*time.Millisecond, 50*time.Millisecond)
	release := make(chan struct{})
	defer close(release)
	var asked atomic.Int32
	f.export(root, name+".zone", methods{"changeZoneOfInterface": func(zone, iface string) (string, *dbus.Error) {
		asked.Add(1)
		<-release
		return zone, nil
	}})
	bindings := make([]zones.Binding, 300)
	for i := range bindings {
		bindings[i] = zones.Binding{Interface: "virbr0", Zone: "libvirt"}
	}
	for i, err := range c.BindAll(t.Context(), bindings) {
		if !zones.IsSilence(err) || zones.IsRefusal(err) || errors.Is(err, zones.ErrNotRunning) {
			t.Errorf("binding %d: %v", i, err)
		}
	}
	if n := asked.Load(); n > 16 {
		t.Errorf("a silent firewalld was asked %d times", n)
	}
}

// TestSlowAnswersAreNoSilence: firewalld 2.3 takes more than a second for each of a
// hundred interfaces. A call that waits while others are answered is not given up.
func TestSlowAnswersAreNoSilence(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	c.SetTimeouts(time.Second, time.Second)
	var one sync.Mutex // as firewalld, which does one thing at a time
	f.export(root, name+".zone", methods{"changeZoneOfInterface": func(zone, iface string) (string, *dbus.Error) {
		one.Lock()
		defer one.Unlock()
		time.Sleep(100 * time.Millisecond)
		return zone, nil
	}})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := c.Bind(t.Context(), "virbr0", "libvirt"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestUnanswered: a call that waits, or has timed out, determines for how long
// firewalld has been silent; its next answer ends that.
func TestUnanswered(t *testing.T) {
	t.Parallel()
	f, c := newFake(t)
	c.SetTimeouts(1200*time.Millisecond, time.Second)
	release := make(chan struct{})
	f.export(root, name+".zone", methods{"changeZoneOfInterface": func(zone, iface string) (string, *dbus.Error) {
		<-release
		return zone, nil
	}})
	if d := c.Unanswered(); d != 0 {
		t.Errorf("unasked, it has been silent for %s", d)
	}
	asked := make(chan error)
	go func() {
		_, err := c.Bind(t.Context(), "virbr0", "libvirt")
		asked <- err
	}()
	for c.Unanswered() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := <-asked; !zones.IsSilence(err) {
		t.Errorf("the question ended with %v", err)
	}
	if d := c.Unanswered(); d < time.Second {
		t.Errorf("after a question was given up it has been silent for %s", d)
	}
	answered := make(chan error)
	f.export(root, name, methods{"getDefaultZone": func() (string, *dbus.Error) {
		<-release
		return "public", nil
	}})
	go func() { answered <- c.Answer(t.Context()) }()
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if d := c.Unanswered(); d != 0 {
		t.Errorf("after an answer it has been silent for %s", d)
	}
}
