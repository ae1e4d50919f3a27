// Command virtfirewallctl is the command line of virtfirewalld: a D-Bus client
// like any other.
package main

import (
	"os"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/cli"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(cli.Main(version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
