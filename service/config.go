package service

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/choice"
)

// ConfigFile is the name of the configuration file in its directory.
const ConfigFile = "virtfirewalld.conf"

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
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		key, value, err := setting(lines.Text())
		if err == nil && key != "" {
			err = c.set(key, value, file, number)
		}
		if err != nil {
			return Config{}, fmt.Errorf("%s, line %d: %w", file, number, err)
		}
	}
	return c, lines.Err()
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

// ConfigFiles are where the configuration is.
type ConfigFiles struct {
	Dir     string // of virtfirewalld.conf
	Libvirt string // libvirt's network.conf, whose backend counts where the service's own does not say
}

// Read reads the configuration; missing files are the defaults.
func (f ConfigFiles) Read() (Config, error) {
	file := filepath.Join(f.Dir, ConfigFile)
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := ParseConfig(text, file)
	if err != nil {
		return c, err
	}
	c.Libvirt.File = f.Libvirt
	c.Libvirt.Value, c.Libvirt.Line, err = choice.ReadLibvirt(f.Libvirt)
	return c, err
}

// SetBackend writes the backend into the service's own file and leaves the
// rest as it is.
func (f ConfigFiles) SetBackend(value string) error {
	file := filepath.Join(f.Dir, ConfigFile)
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	line, written := fmt.Sprintf("firewall_backend = %q", value), false
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i, l := range lines {
		if key, _, err := setting(l); err == nil && key == "firewall_backend" {
			lines[i], written = line, true
		}
	}
	if !written {
		lines = append(lines, line)
	}
	return writeWhole(file, []byte(strings.TrimPrefix(strings.Join(lines, "\n"), "\n")+"\n"))
}

// writeWhole replaces a file in one step.
func writeWhole(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already where all went well
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
