package zones

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	callTimeout = 5 * time.Second
	// firewalld writes its whole ruleset again in a reload, which took it
	// minutes with hundreds of interfaces before its version 2.4.
	reloadTimeout = 60 * time.Second
	// forever is for a call that lasts as long as its context.
	forever = 24 * time.Hour
	// turnLimit is how long a call waits for its turn, while firewalld answers
	// others.
	turnLimit = 60 * time.Second
	// inFlight limits concurrent calls: so many keep firewalld busy, which
	// answers one after another, and other programs do not wait behind more.
	inFlight = 2
)

// Client calls firewalld. Its methods may be called at any time from any
// goroutine, and they never start a firewalld that does not run.
type Client struct {
	conn      *dbus.Conn
	log       *slog.Logger
	timeout   time.Duration
	reload    time.Duration
	root      string // below which firewalld's files are
	responses responseTimes

	// changing is held while zones are installed or removed.
	changing sync.Mutex

	mu    sync.Mutex
	known known
}

// known caches firewalld's answers. It is valid only while a watch runs: without
// one, nothing would invalidate it.
type known struct {
	watches    int
	generation int // grows with each event that invalidates answers
	running    bool
	life       string // of the firewalld that runs
	installed  *Installed
	backend    string
}

// New returns a client over a connection to the system bus.
func New(conn *dbus.Conn, log *slog.Logger) *Client {
	return &Client{conn: conn, log: log, timeout: callTimeout, reload: reloadTimeout, root: "/"}
}

// Running reports whether firewalld is on the bus.
func (c *Client) Running(ctx context.Context) bool {
	c.mu.Lock()
	k := c.known
	c.mu.Unlock()
	if k.watches > 0 {
		return k.running
	}
	owner, err := c.owner(ctx)
	if err != nil {
		c.log.Warn("cannot tell whether firewalld is running", "error", err)
	}
	return owner != ""
}

// owner returns the unique name of firewalld on the bus, "" for none.
func (c *Client) owner(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var owner string
	err := c.conn.BusObject().CallWithContext(ctx, busInterface+".GetNameOwner", 0, busName).Store(&owner)
	var refused dbus.Error
	if errors.As(err, &refused) && refused.Name == busInterface+".Error.NameHasNoOwner" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("asking the bus for firewalld: %w", err)
	}
	return owner, nil
}

// Backend returns firewalld's own backend, "nftables" or "iptables".
func (c *Client) Backend(ctx context.Context) (string, error) {
	c.mu.Lock()
	k := c.known
	c.mu.Unlock()
	if k.watches > 0 && k.backend != "" {
		return k.backend, nil
	}
	var v dbus.Variant
	err := c.call(ctx, configPath, propertiesGet, []any{configInterface, "FirewallBackend"}, &v)
	backend, _ := v.Value().(string)
	switch {
	case isMissingProperty(err):
		// firewalld before 0.6 has only one backend, and no property for it.
		backend = "iptables"
	case err != nil:
		return "", fmt.Errorf("reading firewalld's backend: %w", err)
	}
	c.learn(k.generation, func(k *known) { k.backend = backend })
	return backend, nil
}

// Answer waits until firewalld answers, for as long as ctx lasts. firewalld does
// one thing at a time: it answers once it has finished what it was doing, such
// as a long reload or a stop by a signal.
func (c *Client) Answer(ctx context.Context) error {
	var zone string
	err := c.callFor(ctx, forever, rootPath, rootInterface+".getDefaultZone", nil, &zone)
	return wrap("waiting for firewalld to answer", err)
}

// Unanswered returns for how long firewalld has left a call unanswered, including
// one that has timed out; 0 where it answered all, or the last one.
func (c *Client) Unanswered() time.Duration { return c.responses.unanswered() }

// Zones returns the names of the zones in force.
func (c *Client) Zones(ctx context.Context) ([]string, error) {
	have, err := c.Installed(ctx)
	if err == nil && !have.Running {
		err = fmt.Errorf("listing zones: %w", ErrNotRunning)
	}
	return have.Zones, err
}

// Installed returns what firewalld has in force. That it does not run is no error.
func (c *Client) Installed(ctx context.Context) (Installed, error) {
	c.mu.Lock()
	k := c.known
	c.mu.Unlock()
	if k.watches > 0 && !k.running {
		return Installed{}, nil
	}
	if k.watches > 0 && k.installed != nil {
		return k.installed.clone(), nil
	}
	have, err := c.readInstalled(ctx)
	if errors.Is(err, ErrNotRunning) {
		return Installed{}, nil
	}
	if err != nil {
		return Installed{}, err
	}
	have.Life = k.life
	c.learn(k.generation, func(k *known) { k.installed = &have })
	return have.clone(), nil
}

func (c *Client) readInstalled(ctx context.Context) (Installed, error) {
	have := Installed{Running: true}
	err := inParallel(2, func(i int) error {
		if i == 0 {
			err := c.call(ctx, rootPath, zoneInterface+".getZones", nil, &have.Zones)
			return wrap("listing zones", err)
		}
		err := c.call(ctx, rootPath, policyInterface+".getPolicies", nil, &have.Policies)
		if isUnknownMethod(err) {
			return nil
		}
		return wrap("listing policies", err)
	})
	return have, err
}

func (i Installed) clone() Installed {
	i.Zones, i.Policies = slices.Clone(i.Zones), slices.Clone(i.Policies)
	return i
}

// learn caches an answer, unless it may have been out of date on arrival.
func (c *Client) learn(generation int, store func(*known)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known.watches > 0 && c.known.generation == generation {
		store(&c.known)
	}
}

// forget invalidates all answers, including those that have yet to arrive.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.generation++
	c.known.installed, c.known.backend = nil, ""
}
