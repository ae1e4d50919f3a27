package iptables

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

const (
	recordSuffix = ".rules"
	newSuffix    = ".new"
	brokenSuffix = ".broken"
	triedFile    = "tried"
	// mostRecordBytes is far more than the rules of the largest network.
	maxRecordBytes = 64 << 20
)

// record is the content of a file.
type record struct {
	Network string
	Rules   []Rule
}

// readRecords reads what earlier processes recorded. A file that cannot be used is
// renamed and reported: rules that it recorded stay in the kernel if no network
// has them any more.
func readRecords(dir string) (recorded map[string][]Rule, broken []error, err error) {
	recorded = make(map[string][]Rule)
	if dir == "" {
		return recorded, nil, nil
	}
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return recorded, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading what is recorded of iptables: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if strings.HasSuffix(path, newSuffix) {
			_ = os.Remove(path) // of a run that was killed while it wrote
		}
		if !strings.HasSuffix(path, recordSuffix) {
			continue
		}
		r, err := readRecord(path)
		if err != nil {
			broken = append(broken, fmt.Errorf("using %s: %w", path, errors.Join(err, os.Rename(path, path+brokenSuffix))))
			continue
		}
		recorded[r.Network] = r.Rules
	}
	return recorded, broken, nil
}

func readRecord(path string) (r record, err error) {
	data, _, err := trusted.Read(path, maxRecordBytes)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

// recordEntries records rules before they are installed, in addition to earlier
// ones: until the change is made, the kernel may hold both.
func (b *Backend) recordEntries(entries []entry) error {
	for _, n := range entries {
		old := b.recorded[n.network]
		all := slices.Clone(old)
		known := make(map[Rule]bool, len(old))
		for _, r := range old {
			known[r] = true
		}
		for _, r := range n.rules {
			if !known[r] {
				all = append(all, r)
			}
		}
		if len(all) == len(old) {
			continue
		}
		if err := b.writeRecord(n.network, all); err != nil {
			return err
		}
		b.recorded[n.network] = all
	}
	return nil
}

// trimRecords reduces the records to what the kernel holds. A failure is harmless:
// a recorded rule need not exist.
func (b *Backend) trimRecords(want []entry) {
	is := make(map[string]bool, len(want))
	for _, n := range want {
		is[n.network] = true
		if old, noted := b.recorded[n.network]; noted && len(old) == len(n.rules) {
			continue // recordEntries wrote the same
		}
		if err := b.writeRecord(n.network, n.rules); err != nil {
			b.log.Warn("the record of a network's rules has rules that are gone", "network", n.network, "error", err)
			continue
		}
		b.recorded[n.network] = n.rules
	}
	for name := range b.recorded {
		if is[name] {
			continue
		}
		delete(b.recorded, name)
		if b.config.Record == "" {
			continue
		}
		if err := os.Remove(b.recordPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.log.Warn("the record of a network that is gone stays", "network", name, "error", err)
		}
	}
}

// recordPath returns the path of a network's file. It has a hash, as the longest
// names, once escaped, are too long for a file's.
func (b *Backend) recordPath(name string) string {
	return filepath.Join(b.config.Record, fmt.Sprintf("%x", sha256.Sum256([]byte(name)))+recordSuffix)
}

// writeRecord replaces a network's file atomically.
func (b *Backend) writeRecord(name string, rules []Rule) error {
	if b.config.Record == "" {
		return nil
	}
	data, err := json.Marshal(record{name, rules})
	if err == nil {
		err = b.write(b.recordPath(name), data)
	}
	if err != nil {
		return fmt.Errorf("recording the rules of network %s: %w", name, err)
	}
	return nil
}

// write replaces a file atomically.
func (b *Backend) write(path string, data []byte) error {
	if err := os.MkdirAll(b.config.Record, 0o700); err != nil {
		return err
	}
	err := os.WriteFile(path+newSuffix, data, 0o600)
	if err == nil {
		err = os.Rename(path+newSuffix, path)
	}
	if err != nil {
		_ = os.Remove(path + newSuffix) // half of it, where the disk is full
	}
	return err
}

// probed reports whether these programs were probed with success since the host was
// booted, which the folder does not outlive.
func (b *Backend) probed(both families) bool {
	if b.config.Record == "" {
		return false
	}
	saved, _, err := trusted.Read(filepath.Join(b.config.Record, triedFile), maxRecordBytes)
	return err == nil && string(saved) == installation(both)
}

func (b *Backend) saveProbed(both families) {
	if b.config.Record == "" {
		return
	}
	if err := b.write(filepath.Join(b.config.Record, triedFile), []byte(installation(both))); err != nil {
		b.log.Warn("the next start tries again what iptables can do", "error", err)
	}
}

// forgetProbe makes the next Probe try again.
func (b *Backend) forgetProbe() {
	if b.config.Record != "" {
		_ = os.Remove(filepath.Join(b.config.Record, triedFile)) // not there, most often
	}
}

// installation returns a string that identifies the installed programs.
func installation(both families) string {
	var text strings.Builder
	for _, f := range both.Both {
		fmt.Fprintln(&text, f, f.Restore, f.Save)
	}
	return text.String()
}
