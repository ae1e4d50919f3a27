package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the host and what is not active, on one screen",
		Long: `Status shows the service, its backend and where that choice comes from, firewalld,
how many networks there are in which state, which of them are not active, why,
and what to do, and what was found about the host itself. The latter is for
administrators; it is left out for others.`,
		Args: between(0, 0),
		RunE: a.read(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
			h, err := c.Host(ctx)
			if err != nil {
				return nil, err
			}
			networks, err := c.Networks(ctx)
			if err != nil {
				return nil, err
			}
			s := overview{Host: h, Networks: countsOf(networks), NotActive: []client.Network{}, Findings: []client.Finding{}}
			for _, n := range networks {
				if n.State != "active" {
					s.NotActive = append(s.NotActive, n)
				}
			}
			return s, s.diagnose(ctx, c)
		}),
	}
}

// overview is the host and its networks.
type overview struct {
	Host      client.Host      `json:"host"`
	Networks  networkCounts    `json:"networks"`
	NotActive []client.Network `json:"not_active"`
	Findings  []client.Finding `json:"host_findings"`
	// Undiagnosed is why findings are unknown; "" if they are known.
	Undiagnosed string `json:"undiagnosed"`
}

// networkCounts are networks by state.
type networkCounts struct {
	Total    int `json:"total"`
	Active   int `json:"active"`
	Waiting  int `json:"waiting"`
	Degraded int `json:"degraded"`
	Failed   int `json:"failed"`
}

func countsOf(networks []client.Network) (c networkCounts) {
	for _, n := range networks {
		c.Total++
		switch n.State {
		case "active":
			c.Active++
		case "waiting":
			c.Waiting++
		case "degraded":
			c.Degraded++
		case "failed":
			c.Failed++
		}
	}
	return c
}

// text formats the counts as systemctl status shows them: "3 networks, 1 degraded".
func (c networkCounts) text() string {
	summary := count(c.Total, "network")
	if c.Total > 0 && c.Active == c.Total {
		return summary + ", active"
	}
	for _, s := range []struct {
		n     int
		state string
	}{{c.Failed, "failed"}, {c.Degraded, "degraded"}, {c.Waiting, "waiting"}} {
		if s.n > 0 {
			summary += fmt.Sprintf(", %d %s", s.n, s.state)
		}
	}
	return summary
}

// diagnose adds the findings about the host itself. For a user who may not
// diagnose it adds a line about that instead, and is no error.
func (s *overview) diagnose(ctx context.Context, c *client.Client) error {
	all, err := c.Diagnose(ctx)
	switch {
	case errors.Is(err, client.ErrNotAuthorised):
		s.Undiagnosed = "only an administrator may see what was found about the host: sudo virtfirewallctl doctor"
		return nil
	case errors.Is(err, client.ErrUnreachable):
		return err
	case err != nil:
		s.Undiagnosed = "diagnosing the host failed: " + err.Error()
	}
	for _, f := range all {
		if f.Network == "" {
			s.Findings = append(s.Findings, f)
		}
	}
	return nil
}

func (s overview) text(o *output) {
	h := s.Host
	o.fields([][]string{
		{"Service:", "virtfirewalld " + orElse(h.Version, "of unknown version")},
		{"Backend:", orElse(h.Backend, "none") + " (available: " + listed(h.AvailableBackends, "none") + ")"},
		{"Configured:", orElse(h.ConfiguredBackend, "nothing")},
		{"Source:", orElse(h.BackendSource, "none")},
		{"Firewalld:", firewalld(h)},
		{"Networks:", s.Networks.text()},
	})
	notActive(o, s.NotActive)
	if len(s.Findings) > 0 {
		o.linef("")
	}
	for _, f := range s.Findings {
		findingText(o, f)
	}
	if s.Undiagnosed != "" {
		o.linef("")
		o.linef("%s", sentence(s.Undiagnosed))
	}
}

func firewalld(h client.Host) string {
	if !h.FirewalldRunning {
		return "not running"
	}
	return "running, backend " + orElse(h.FirewalldBackend, "unknown") + "; libvirt zones: " + listed(h.InstalledZones, "none")
}
