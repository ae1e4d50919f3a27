package network

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
)

// urlNamespace is the UUID of the URL namespace, RFC 9562, 6.6.
const urlNamespace = "6ba7b8119dad11d180b400c04fd430c8"

// deriveUUID returns the UUID of a network whose client set none: version 5
// (RFC 9562, 5.5) of the name, in a namespace made from MetadataNamespace, so that
// the same name has the same UUID after every restart and on every host.
func deriveUUID(name string) string {
	space := uuid5(unhex(urlNamespace), MetadataNamespace)
	return dashed(uuid5(space, name))
}

func uuid5(space []byte, name string) []byte {
	h := sha1.New()
	h.Write(space)
	h.Write([]byte(name))
	id := h.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

// parseUUID parses a UUID as libvirt does, which allows dashes and white space
// anywhere, and returns it in lower case with the standard dashes.
func parseUUID(s string) (string, error) {
	digits := strings.Map(func(r rune) rune {
		if r == '-' || strings.ContainsRune(" \t\r\n", r) {
			return -1
		}
		return r
	}, s)
	id := unhex(digits)
	if len(id) != 16 {
		return "", invalid("UUID", "%s is not a UUID: give 32 hex digits, or leave it out", quote(s))
	}
	return dashed(id), nil
}

// unhex returns nil for anything but hex digits.
func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}

func dashed(id []byte) string {
	s := hex.EncodeToString(id)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
