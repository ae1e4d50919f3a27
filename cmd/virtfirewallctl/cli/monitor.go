package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

func (a *app) monitorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "monitor",
		Short: "Print what happens, as it happens, until interrupted",
		Long: `Monitor prints one line for each thing that happens to the networks and to the
service, until it is interrupted. With --json each line is one object. It does
not start the service, and continues across its restarts.`,
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := client.Dial(cmd.Context(), client.Options{Timeout: a.timeout, NoAutoStart: true})
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Monitor(cmd.Context(), a.printEvent)
		},
	}
}

func (a *app) printEvent(e client.Event) error {
	line := e.Time.Format(time.RFC3339) + " " + printable(describe(e))
	if a.json {
		text, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("printing an event: %w", err)
		}
		line = string(text)
	}
	a.out.linef("%s", line)
	return a.out.flush()
}

// describe formats an event for people.
func describe(e client.Event) string {
	switch e.Event {
	case client.EventNetworkAdded:
		return "network " + e.Network + " added"
	case client.EventNetworkRemoved:
		return "network " + e.Network + " removed"
	case client.EventNetworkChanged:
		return "network " + e.Network + " changed: " + changes(e)
	case client.EventHostChanged:
		return "service changed: " + changes(e)
	case client.EventBackendChanged:
		return "backend changed from " + orElse(e.Old, "none") + " to " + orElse(e.New, "none")
	case client.EventRepaired:
		return "network " + e.Network + " repaired: " + e.Cause
	case client.EventServiceStarted:
		return "service started"
	case client.EventServiceStopped:
		return "service stopped"
	}
	return e.Event
}

func changes(e client.Event) string {
	var parts []string
	for _, name := range e.Properties() {
		parts = append(parts, name+"="+value(e.Changed[name]))
	}
	parts = append(parts, e.Invalidated...)
	return strings.Join(parts, " ")
}

func value(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
