// Package zones puts the bridges of virtual networks into firewalld's zones
// over D-Bus, and brings the zones and policies that this needs.
//
// It knows firewalld and nothing of what a network is: which bridge belongs
// where, and when, is the caller's business.
package zones

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed firewalld
var embedded embed.FS

// Files holds our zones and policies as firewalld's own files, laid out as
// below /usr/lib/firewalld: zones/NAME.xml and policies/NAME.xml.
func Files() fs.FS {
	sub, err := fs.Sub(embedded, "firewalld")
	if err != nil { // only for a malformed path, and ours is constant
		panic(fmt.Sprintf("opening the embedded zones: %v", err))
	}
	return sub
}
