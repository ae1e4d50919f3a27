package main

import (
	"fmt"
	"os"
	"strings"
)

// printer shows steps, in colour on a terminal.
type printer struct {
	to     *os.File
	colour bool
}

func newPrinter(to *os.File) *printer {
	info, err := to.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &printer{to: to, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

const (
	bold  = "1"
	green = "32"
	red   = "31"
	cyan  = "36"
	faint = "2"
)

func (p *printer) paint(code, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *printer) note(format string, args ...any) {
	fmt.Fprintf(p.to, "\n%s\n", p.paint(bold, fmt.Sprintf(format, args...)))
}

// step announces a command before it runs.
func (p *printer) step(what, where string, cmd []string) {
	if where == "" {
		where = "host"
	}
	line := strings.Join(cmd, " ")
	if len(cmd) == 3 && cmd[0] == "sh" {
		line = cmd[2]
	}
	fmt.Fprintf(p.to, "\n%s\n%s %s\n", p.paint(bold, what), p.paint(faint, where+"$"), p.paint(cyan, line))
}

// result shows what came back and whether it was as it should be.
func (p *printer) result(output string, err error) {
	if output = strings.TrimRight(output, "\n"); output != "" {
		fmt.Fprintf(p.to, "  %s\n", strings.ReplaceAll(output, "\n", "\n  "))
	}
	if err != nil {
		fmt.Fprintf(p.to, "%s %v\n", p.paint(red, "not so:"), err)
		return
	}
	fmt.Fprintln(p.to, p.paint(green, "true"))
}

// hints are commands to try in the host that stays.
func (p *printer) hints() {
	const call = "busctl call " + busName + " " + manager + " " + busName
	p.note("the host stays up until you leave its shell; try:")
	for _, line := range []string{
		"busctl introspect " + busName + " " + manager + "/network/default",
		call + " ListNetworks",
		call + " Reapply",
		"busctl call " + busName + " " + manager + "/network/default " + busName + ".Network GetCounters",
		"busctl monitor " + busName,
		"nft list table inet libvirt_network",
		"virtfirewallctl backend iptables; iptables-save; virtfirewallctl backend auto",
		"virtfirewallctl show default",
	} {
		fmt.Fprintln(p.to, "  "+p.paint(cyan, line))
	}
}
