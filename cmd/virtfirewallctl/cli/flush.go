package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

func (a *app) flushCommand() *cobra.Command {
	var persistent, yes bool
	cmd := &cobra.Command{
		Use:   "flush",
		Short: "Remove all networks from the service",
		Long: `Flush removes every network, as remove does: all rules are removed, and bridges
leave the firewalld zones that the service put them into. Persistent networks come
back with the next reload or reboot, unless --persistent is given.

It asks first, unless --yes is given. The service goes on running. To remove
everything that a stopped service left behind, run virtfirewalld --flush.`,
		Args: between(0, 0),
	}
	cmd.RunE = a.do(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
		networks, err := c.Networks(ctx)
		if err != nil {
			return nil, err
		}
		if len(networks) > 0 && !yes {
			fmt.Fprint(cmd.ErrOrStderr(), question(len(networks)))
			if err := a.confirm(); err != nil {
				return nil, err
			}
		}
		return removeAll(ctx, c, networks, persistent)
	})
	cmd.Flags().BoolVar(&persistent, "persistent", false, "also remove them from the configuration")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func question(networks int) string {
	if networks == 1 {
		return "Remove 1 network and its rules? [y/N] "
	}
	return fmt.Sprintf("Remove %d networks and their rules? [y/N] ", networks)
}

// confirm returns an error unless the answer is yes; the end of the input is none.
func (a *app) confirm() error {
	line, _ := bufio.NewReader(a.stdin).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("nothing was removed: answer y, or give --yes")
	}
	return nil
}

// removeAll removes all networks that it can, even where removing one fails.
func removeAll(ctx context.Context, c *client.Client, networks []client.Network, persistent bool) (result, error) {
	done := flushed{Removed: []string{}}
	var errs []error
	for _, n := range networks {
		err := c.Remove(ctx, n.Name, persistent)
		switch {
		case err == nil:
			done.Removed = append(done.Removed, n.Name)
		case errors.Is(err, client.ErrNotAuthorised), errors.Is(err, client.ErrUnreachable):
			return nil, err // the others would fail in the same way
		case !errors.Is(err, client.ErrNotFound):
			errs = append(errs, fmt.Errorf("removing %s: %w", n.Name, err))
		}
	}
	return done, errors.Join(errs...)
}

type flushed struct {
	Removed []string `json:"removed"`
}

func (f flushed) text(o *output) {
	if len(f.Removed) == 0 {
		o.linef("no networks to remove")
	}
	for _, name := range f.Removed {
		o.linef("%s removed", printable(name))
	}
}
