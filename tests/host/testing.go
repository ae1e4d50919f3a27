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
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}
