package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

const fromConfig source = "config"

// settingsFile has the last good configuration, in the state directory.
const settingsFile = "settings.json"

// ConfigFiles are where the configuration is.
type ConfigFiles struct {
	Dir     string // of virtfirewalld.conf
	Libvirt string // libvirt's network.conf, whose backend counts where the service's own does not say
	State   string // where the last good configuration is kept; "" for nowhere
}

// Read reads the configuration; missing files are the defaults.
func (f ConfigFiles) Read() (Config, error) {
	file, text, _, err := f.own()
	if err != nil {
		return Config{}, err
	}
	c, err := ParseConfig(text, file)
	if err != nil {
		return c, err
	}
	c.Libvirt.File = f.Libvirt
	c.Libvirt.Value, c.Libvirt.Line, err = choice.ReadLibvirt(f.Libvirt)
	return c, err
}

// own reads the service's own file. It may be a symbolic link: then to is what
// it leads to, which is trusted as the file itself would be.
func (f ConfigFiles) own() (file string, text []byte, to string, err error) {
	file = filepath.Join(f.Dir, ConfigFile)
	if to, err = follow(file); err == nil {
		text, _, err = trusted.Read(to, maxConfigBytes)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil, to, nil
	}
	if err == nil {
		err = errors.Join(trusted.CheckFolder(f.Dir), trusted.CheckFolder(filepath.Dir(to)))
	}
	if err != nil {
		err = fmt.Errorf("reading the configuration %s: %w", file, err)
	}
	return file, text, to, err
}

// follow is the file that a name leads to, and the name itself where there is
// none.
func follow(file string) (string, error) {
	to, err := filepath.EvalSymlinks(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return to, err
	}
	if _, err := os.Lstat(file); err == nil {
		return "", errors.New("it is a symbolic link to a file that does not exist; make that file, or remove the link")
	}
	return file, nil
}

// AtStart is the configuration that a start goes by: where the files cannot be
// used, the last good one, else the defaults, and unusable says why. A service
// that does not start would leave the rules to whatever happens to them.
func (f ConfigFiles) AtStart() (c Config, unusable error) {
	if c, unusable = f.Read(); unusable == nil {
		return c, nil
	}
	text, _, err := trusted.Read(filepath.Join(f.State, settingsFile), maxConfigBytes)
	c, _ = ParseConfig(nil, "")
	if err == nil && json.Unmarshal(text, &c) != nil {
		c, _ = ParseConfig(nil, "")
	}
	return c, unusable
}

// Remember keeps a configuration as the last good one.
func (f ConfigFiles) Remember(c Config) error {
	if f.State == "" {
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("writing down the configuration: %w", err)
	}
	file := filepath.Join(f.State, settingsFile)
	if was, _, err := trusted.Read(file, maxConfigBytes); err == nil && bytes.Equal(was, text) {
		return nil
	}
	put, drop, err := stage(file, text)
	if err == nil {
		defer drop()
		err = put()
	}
	if err != nil {
		return fmt.Errorf("keeping the configuration for a start at which it cannot be read: %w", err)
	}
	return nil
}

// StageBackend writes a new version of the service's own file, with the backend and all the
// rest as it is, beside the present one, which put replaces with it: whatever
// can fail has been done by then. drop removes what was not put in place.
func (f ConfigFiles) StageBackend(value string) (put func() error, drop func(), err error) {
	_, text, to, err := f.own()
	if err != nil {
		return nil, nil, err
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
	return stage(to, []byte(strings.TrimPrefix(strings.Join(lines, "\n"), "\n")+"\n"))
}

// stage writes what shall replace a file, on the disk but for its name. What a
// killed run left of an earlier one is taken away.
func stage(file string, text []byte) (put func() error, drop func(), err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	beside := filepath.Join(dir, "."+filepath.Base(file)+".new")
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, nil, err
	}
	drop = func() { _ = os.Remove(beside) } // not there where it was put in place
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		drop()
		return nil, nil, err
	}
	return func() error { return os.Rename(beside, file) }, drop, nil
}
