package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// notices returns the whole licence text of every module.
func notices(modules []module) []byte {
	var out bytes.Buffer
	out.WriteString("virtfirewalld and virtfirewallctl contain the following, each under its own licence.\n")
	for _, m := range modules {
		fmt.Fprintf(&out, "\n%s\n%s %s: %s\n\n%s\n", strings.Repeat("=", 78), m.Path, m.Version, m.Licence, m.Text)
		if m.Notice != "" {
			fmt.Fprintf(&out, "\nNOTICE\n\n%s\n", m.Notice)
		}
	}
	return out.Bytes()
}

// debian returns the copyright file in Debian's machine-readable form. The Apache
// licence is on every Debian machine and only named; the other texts differ from
// module to module, and are included for each.
func debian(modules []module, maintainer string) ([]byte, error) {
	own, err := os.ReadFile("LICENSE")
	if err != nil {
		return nil, err
	}
	if name := shortName(string(own)); name != "Apache-2.0" {
		return nil, fmt.Errorf("reading LICENSE: it is %q, not the Apache licence", name)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"+
		"Upstream-Name: virtfirewalld\nUpstream-Contact: %s\nSource: https://github.com/virtfirewalld/virtfirewalld\n"+
		"Comment: The programs contain the Go modules below, each under its own licence.\n\n"+
		"Files: *\nCopyright: the virtfirewalld authors\nLicense: Apache-2.0\n", maintainer)
	for _, m := range modules {
		who := m.Holders
		if len(who) == 0 {
			who = []string{"the authors of " + m.Path}
		}
		fmt.Fprintf(&out, "\nFiles: %s/*\nCopyright: %s\nLicense: %s\n", m.Path, strings.Join(who, "\n           "), m.Licence)
		comment := "Version " + m.Version + "."
		if m.Licence != "Apache-2.0" {
			out.WriteString(indented(m.Text))
		} else if m.Notice != "" {
			comment += " Its notice says:\n" + strings.TrimSuffix(indented(m.Notice), "\n")
		}
		fmt.Fprintf(&out, "Comment: %s\n", comment)
	}
	out.WriteString("\nLicense: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n")
	return out.Bytes(), nil
}

// indented returns a text as the continuation of a field: an empty line is a dot.
func indented(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \t\r\n"); line == "" {
			line = "."
		}
		out.WriteString(" " + line + "\n")
	}
	return out.String()
}
