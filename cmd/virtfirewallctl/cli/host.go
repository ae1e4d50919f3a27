package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration and the persistent networks again",
		Args:  between(0, 0),
		RunE: a.do(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
			return reloaded{true}, c.Reload(ctx)
		}),
	}
}

type reloaded struct {
	Reloaded bool `json:"reloaded"`
}

func (reloaded) text(o *output) { o.linef("reloaded") }

func (a *app) reapplyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reapply",
		Short: "Compare the host with what should be there, and mend the difference",
		Args:  between(0, 0),
		RunE: a.do(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
			n, err := c.Reapply(ctx)
			return reapplied{n}, err
		}),
	}
}

type reapplied struct {
	Repairs uint32 `json:"repairs"`
}

func (r reapplied) text(o *output) {
	if r.Repairs == 0 {
		o.linef("nothing to repair")
		return
	}
	o.linef("%s repaired", count(int(r.Repairs), "network"))
}

var backendNames = []string{"auto", "nftables", "iptables"}

func (a *app) backendCommand() *cobra.Command {
	var persistent bool
	cmd := &cobra.Command{
		Use:   "backend [auto|nftables|iptables]",
		Short: "Show the backend, or move every network to another",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !slices.Contains(backendNames, args[0]) {
				return usageError("a backend is auto, nftables or iptables, not %q", args[0])
			}
			return between(0, 1)(cmd, args)
		},
		ValidArgs: backendNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1:
				return a.do(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
					if err := c.SetBackend(ctx, args[0], persistent); err != nil {
						return nil, err
					}
					return backendOf(ctx, c)
				})(cmd, args)
			case persistent:
				return usageError("--persistent needs a backend to keep")
			}
			return a.read(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
				return backendOf(ctx, c)
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&persistent, "persistent", false, "keep the choice over a restart")
	return cmd
}

func backendOf(ctx context.Context, c *client.Client) (backend, error) {
	h, err := c.Host(ctx)
	return backend{h.Backend, h.ConfiguredBackend, h.BackendSource, h.AvailableBackends}, err
}

type backend struct {
	Backend    string   `json:"backend"`
	Configured string   `json:"configured_backend"`
	Source     string   `json:"backend_source"`
	Available  []string `json:"available_backends"`
}

func (b backend) text(o *output) {
	o.fields([][]string{
		{"Backend:", orElse(b.Backend, "none")},
		{"Configured:", orElse(b.Configured, "nothing")},
		{"Source:", orElse(b.Source, "none")},
		{"Available:", listed(b.Available, "none")},
	})
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program and of the service",
		Long: `Version shows the version of this program and, where it is running, of the
service. It does not start the service.`,
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: a.version}
			h, err := a.runningHost(cmd.Context())
			if err != nil && !errors.Is(err, client.ErrUnreachable) {
				return err
			}
			v.Service = h.Version
			return a.print(v)
		},
	}
}

func (a *app) runningHost(ctx context.Context) (client.Host, error) {
	c, err := client.Dial(ctx, client.Options{Timeout: a.timeout, NoAutoStart: true})
	if err != nil {
		return client.Host{}, err
	}
	defer c.Close()
	return c.Host(ctx)
}

type versions struct {
	Client  string `json:"client"`
	Service string `json:"service"`
}

func (v versions) text(o *output) {
	o.fields([][]string{
		{"virtfirewallctl", v.Client},
		{"virtfirewalld", orElse(v.Service, "not running")},
	})
}
