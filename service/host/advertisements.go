package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// Neighbourhood is what Advertisements reads about links.
type Neighbourhood interface {
	Routes
	// Query asks the kernel, not the cache.
	Query(name string) (link watch.Link, ok bool, err error)
}

// Advertisements makes the host ignore router advertisements on bridges of guests,
// as libvirt does on its own, and records on disk what was set before, until the
// host shuts down. A bridge is identified by its interface index, which a rename
// keeps and which no other bridge gets before a reboot. It is not safe for
// concurrent use.
type Advertisements struct {
	cfg    AdvertisementsConfig
	before map[int]Listening
}

// AdvertisementsConfig configures Advertisements.
type AdvertisementsConfig struct {
	Links  Neighbourhood
	Proc   string // usually /proc
	Record string // the folder of the records; it does not outlive a reboot
	Log    *slog.Logger
}

// Listening is how an interface handles router advertisements.
type Listening struct {
	AcceptRA string `json:"accept_ra"`
	Autoconf string `json:"autoconf"`
}

// disabled returns the settings of a bridge of guests.
func disabled() Listening { return Listening{AcceptRA: "0", Autoconf: "0"} }

// values returns the settings with their names.
func (l Listening) values() [2][2]string {
	return [2][2]string{{"accept_ra", l.AcceptRA}, {"autoconf", l.Autoconf}}
}

const unreadable = ".unreadable"

// OpenAdvertisements reads what an earlier run recorded. A record that cannot be
// read is renamed, and that of a bridge that no longer exists is removed.
func OpenAdvertisements(cfg AdvertisementsConfig) (*Advertisements, error) {
	a := &Advertisements{cfg: cfg, before: make(map[int]Listening)}
	if err := os.MkdirAll(cfg.Record, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for bridges' settings: %w", err)
	}
	records, err := os.ReadDir(cfg.Record)
	if err != nil {
		return nil, fmt.Errorf("reading what bridges' settings were: %w", err)
	}
	for _, record := range records {
		index, err := strconv.Atoi(record.Name())
		if err != nil {
			continue
		}
		if l, is := cfg.Links.LinkByIndex(index); !is || !l.Bridge {
			a.remove(index)
			continue
		}
		was, err := readRecord(a.path(index))
		if err != nil {
			cfg.Log.Warn("what a bridge's settings were is not known any more; the file is kept aside",
				"file", a.path(index)+unreadable, "error", err)
			_ = os.Rename(a.path(index), a.path(index)+unreadable)
			continue
		}
		a.before[index] = was
	}
	return a, nil
}

func readRecord(path string) (l Listening, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, err
	}
	for _, v := range l.values() {
		if n, err := strconv.Atoi(v[1]); err != nil || n < 0 || n > 2 {
			return l, fmt.Errorf("%s is %q, which is no value of it", v[0], v[1])
		}
	}
	return l, nil
}

// Silenced returns the bridges whose advertisements are ignored, by index.
func (a *Advertisements) Silenced() []int { return slices.Sorted(maps.Keys(a.before)) }

// Silence makes the host ignore advertisements on a bridge from now on, and removes
// what it learned from earlier ones. again reports that the bridge was silenced
// before, and that another program had switched advertisements on.
func (a *Advertisements) Silence(index int) (again bool, err error) {
	link, now, ok, err := a.readSettings(index)
	if !ok || err != nil {
		return false, err
	}
	_, known := a.before[index]
	if !known {
		// Before anything is changed, so that a killed service finds it at its next
		// start.
		err = a.saveRecord(index, now)
	}
	changed, failed := a.set(link, now, disabled())
	err = errors.Join(err, failed)
	if (changed || a.hasRoute(index)) && a.hasReceived(link) {
		err = errors.Join(err, a.unlearn(link))
	}
	return known && changed, err
}

// Restore restores what was set on a bridge before it was silenced, except what
// another program has set since. If it fails, it can be retried.
func (a *Advertisements) Restore(index int) error {
	was, known := a.before[index]
	if !known {
		return nil
	}
	link, now, ok, err := a.readSettings(index)
	if err != nil {
		return err
	}
	if ok {
		want := now
		if now.AcceptRA == disabled().AcceptRA {
			want.AcceptRA = was.AcceptRA
		}
		if now.Autoconf == disabled().Autoconf {
			want.Autoconf = was.Autoconf
		}
		if _, err := a.set(link, now, want); err != nil {
			return err
		}
	}
	delete(a.before, index)
	a.remove(index)
	return nil
}

// readSettings reads how a link handles advertisements. ok is false if the link is
// gone or the kernel has no IPv6.
func (a *Advertisements) readSettings(index int) (link watch.Link, l Listening, ok bool, err error) {
	link, is := a.cfg.Links.LinkByIndex(index)
	if !is || !isFileName(link.Name) {
		return link, l, false, nil
	}
	for name, into := range map[string]*string{"accept_ra": &l.AcceptRA, "autoconf": &l.Autoconf} {
		data, err := os.ReadFile(a.setting(link.Name, name))
		if errors.Is(err, fs.ErrNotExist) {
			return link, l, false, nil
		}
		if err != nil {
			return link, l, false, fmt.Errorf("reading %s of %s: %w", name, link.Name, err)
		}
		*into = strings.TrimSpace(string(data))
	}
	return link, l, true, nil
}

// set writes what differs.
func (a *Advertisements) set(link watch.Link, now, want Listening) (changed bool, err error) {
	var files [2]*os.File
	defer func() {
		for _, file := range files {
			if file != nil {
				err = errors.Join(err, file.Close())
			}
		}
	}()
	have, values := now.values(), want.values()
	for i, v := range values {
		if v[1] == have[i][1] {
			continue
		}
		if files[i], err = os.OpenFile(a.setting(link.Name, v[0]), os.O_WRONLY, 0); err != nil {
			return false, ignoreMissing(fmt.Errorf("setting %s to %s: %w", settingName(link, v[0]), v[1], err))
		}
	}
	return a.write(link, files, values)
}

// write writes settings of the link itself, not of another that has just taken its
// name: once open, the files belong to that link, and a rename makes writes fail
// (ENOENT).
func (a *Advertisements) write(link watch.Link, files [2]*os.File, values [2][2]string) (changed bool, err error) {
	if files == [2]*os.File{} {
		return false, nil
	}
	now, there, err := a.cfg.Links.Query(link.Name)
	if err != nil || !there || now.Index != link.Index {
		return false, err
	}
	var errs []error
	for i, file := range files {
		if file == nil {
			continue
		}
		if _, err := file.WriteString(values[i][1] + "\n"); err != nil {
			errs = append(errs, fmt.Errorf("setting %s to %s: %w", settingName(link, values[i][0]), values[i][1], err))
			continue
		}
		changed = true
	}
	return changed, errors.Join(errs...)
}

func settingName(link watch.Link, name string) string {
	return SysctlName("net/ipv6/conf/" + link.Name + "/" + name)
}

// hasRoute reports whether the host has a default route through the link from an
// advertisement.
func (a *Advertisements) hasRoute(index int) bool {
	return slices.ContainsFunc(a.cfg.Links.DefaultRoutes(), func(r watch.Route) bool {
		return r.Index == index && r.IPv6 && r.FromRA
	})
}

func (a *Advertisements) setting(link, name string) string {
	return filepath.Join(a.cfg.Proc, "sys/net/ipv6/conf", link, name)
}

// saveRecord records what was set, atomically.
func (a *Advertisements) saveRecord(index int, l Listening) error {
	a.before[index] = l
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	// Files whose names are not numbers are not read.
	temporary := a.path(index) + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return errors.Join(fmt.Errorf("noting what a bridge's settings were: %w", err), ignoreMissing(os.Remove(temporary)))
	}
	return os.Rename(temporary, a.path(index))
}

func (a *Advertisements) remove(index int) {
	if err := ignoreMissing(os.Remove(a.path(index))); err != nil {
		a.cfg.Log.Warn("what a bridge's settings were stays noted", "error", err)
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (a *Advertisements) path(index int) string {
	return filepath.Join(a.cfg.Record, strconv.Itoa(index))
}
