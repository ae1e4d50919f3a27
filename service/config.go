package service

import (
	"errors"
	"fmt"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
)

// ConfigFile is the name of the configuration file in its directory.
const ConfigFile = "virtfirewalld.conf"

// More than anybody writes.
const (
	maxConfigLine  = 4096
	maxConfigBytes = 1 << 20
)

// Config is the service's own configuration.
type Config struct {
	choice.Configured      // which backend, and who says so
	OwnTable          bool // own the table where the kernel can
}

// ParseConfig reads a configuration in the syntax of libvirt's own files: one
// `key = value` a line, strings in quotes, comments after #. file is its name
// for messages.
func ParseConfig(text []byte, file string) (Config, error) {
	c := Config{OwnTable: true}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		key, value, err := setting(line)
		if err == nil && key != "" {
			err = c.set(key, value, file, number)
		}
		if err != nil {
			return Config{}, fmt.Errorf("%s, line %d: %w", file, number, err)
		}
	}
	return c, nil
}

func (c *Config) set(key, value, file string, line int) error {
	switch key {
	case "firewall_backend":
		switch value {
		case choice.Auto, choice.NFTables, choice.IPTables:
			c.Own = choice.Setting{Value: value, File: file, Line: line}
		default:
			return fmt.Errorf("unknown firewall_backend %q: it is auto, nftables or iptables", value)
		}
	case "own_table":
		switch value {
		case "true", "yes", "1":
			c.OwnTable = true
		case "false", "no", "0":
			c.OwnTable = false
		default:
			return fmt.Errorf("own_table is %q: it is true or false", value)
		}
	default:
		return fmt.Errorf("unknown setting %q: there are firewall_backend and own_table", key)
	}
	return nil
}

// setting splits one line; key is "" for an empty line or a comment.
func setting(line string) (key, value string, err error) {
	if len(line) > maxConfigLine {
		return "", "", fmt.Errorf("the line has %d bytes: %d are the most", len(line), maxConfigLine)
	}
	if strings.ContainsRune(line, 0) {
		return "", "", errors.New("the line has a byte 0, so this is no text: write it anew")
	}
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	key, rest, ok := strings.Cut(line, "=")
	if !ok {
		return "", "", errors.New("no = in the line: write key = value")
	}
	rest = strings.TrimSpace(rest)
	if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
		end := strings.IndexByte(rest[1:], rest[0])
		if end < 0 {
			return "", "", errors.New("the quote is not closed")
		}
		value, rest = rest[1:1+end], rest[2+end:]
	} else {
		value, _, _ = strings.Cut(rest, "#")
		return strings.TrimSpace(key), strings.TrimSpace(value), nil
	}
	if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '#' {
		return "", "", fmt.Errorf("%q follows the value", rest)
	}
	return strings.TrimSpace(key), value, nil
}
