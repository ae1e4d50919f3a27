package host

import (
	"context"
	"testing"
)

// Option changes the configuration of a host that New makes.
type Option func(*Config)

// Named sets the host's name.
func Named(name string) Option { return func(c *Config) { c.Name = name } }

// WithForwarding switches the IP forwarding sysctls on.
func WithForwarding() Option { return func(c *Config) { c.Forwarding = true } }

// Booted boots the tree's systemd as pid 1, with the units enabled, and started
// when New returns. There are a system bus, polkit on demand, logind and the
// journal; of what else the tree has, nothing starts by itself.
func Booted(units ...string) Option {
	return func(c *Config) {
		if c.Systemd == nil {
			c.Systemd = &Systemd{}
		}
		c.Systemd.Units = append(c.Systemd.Units, units...)
	}
}

// WithBroker is Booted with dbus-broker as the system bus.
func WithBroker() Option {
	return func(c *Config) { Booted()(c); c.Systemd.Broker = true }
}

// New makes a host for a test. It is removed when the test ends; when the test
// failed, what the programs started in it wrote is logged before. Trouble with
// the host fails the test.
func New(t testing.TB, options ...Option) *Host {
	t.Helper()
	cfg := Config{Fail: func(err error) { t.Helper(); t.Fatal(err) }}
	for _, option := range options {
		option(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	h, err := Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range h.Processes() {
				t.Logf("output of %s on %s:\n%s", p.Name, h.Name(), p.Log())
			}
			if cfg.Systemd != nil {
				journal, _ := h.Run("journalctl", "--no-pager", "-q", "-b", "-n", "200")
				t.Logf("journal of %s:\n%s", h.Name(), journal)
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}
