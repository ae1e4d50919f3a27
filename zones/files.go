// Package zones puts the bridges of virtual networks into firewalld's zones
// over D-Bus, and installs the zones and policies that this needs.
//
// It knows firewalld and nothing about networks: the caller decides which
// bridge belongs in which zone, and when.
package zones

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed firewalld
var embedded embed.FS

// Files returns our zones and policies as firewalld's own files, laid out as in
// /usr/lib/firewalld: zones/NAME.xml and policies/NAME.xml.
func Files() fs.FS {
	sub, err := fs.Sub(embedded, "firewalld")
	if err != nil { // only for a malformed path, and ours is constant
		panic(fmt.Sprintf("opening the embedded zones: %v", err))
	}
	return sub
}
