// Package store keeps networks in files: persistent ones in a folder that an
// administrator edits too, runtime ones and runtime changes to persistent ones
// in a folder that ends with the host's uptime. It knows what lasts how long,
// and that a change is on disk whole or not at all, also when the service is
// killed in the middle of it. It does not look into the documents.
package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

// Errors of single calls.
var (
	// ErrNotFound means that no file defines the network.
	ErrNotFound = errors.New("no such network is stored")
	// ErrUnread means that a file exists that did not, or could not be used, when the
	// files were last read.
	ErrUnread = errors.New("the file is not one of the loaded ones; look at it and reload")
)

// Config is where files are and how they are read.
type Config struct {
	PersistentDir string // /etc/virtfirewalld/networks
	RuntimeDir    string // /run/virtfirewalld
	StateDir      string // /var/lib/virtfirewalld
	// Parse parses one document; it returns an error if it cannot be used.
	Parse func(doc []byte) (network.Network, error)

	disk disk // for tests; nil: the real one
}

// folder is one of the places for files.
type folder string

const (
	persistentFolder folder = "persistent"
	runtimeFolder    folder = "networks"
	removedFolder    folder = "removed"
	stateFolder      folder = "."
	lastingCopies    folder = "lasting" // the last good definitions of persistent networks
	runtimeCopies    folder = "kept"    // and of what ends with a reboot
)

// lasts reports whether what is in the folder outlives a reboot.
func (f folder) lasts() bool { return f == persistentFolder || f == lastingCopies }

const (
	suffix       = ".xml"
	changeSuffix = ".change.xml" // a runtime change to a persistent network
	journalFile  = "journal.json"
	countersFile = "counters.json"
	asideSuffix  = ".broken"
)

// known is what files there are of one network.
type known struct {
	persistent string // file names; "" for none
	runtime    string
	removed    bool // taken out until reload or reboot
}

// Store manages the files. It is safe for concurrent use.
type Store struct {
	cfg Config

	mu      sync.Mutex
	names   map[string]known
	journal bool // there is one on the disk
	faults  []FileError
}

// Open creates the runtime folders, completes what a killed run left half done and
// deletes its temporary files. No networks are known before Load.
func Open(cfg Config) (*Store, error) {
	s := &Store{cfg: cfg, names: make(map[string]known)}
	if s.cfg.disk == nil {
		s.cfg.disk = realDisk{}
	}
	for _, f := range []folder{stateFolder, removedFolder, runtimeCopies} {
		if err := s.cfg.disk.MkdirAll(s.path(f, "")); err != nil {
			return nil, fmt.Errorf("making the runtime folder: %w", err)
		}
	}
	if err := trusted.CheckFolder(s.path(stateFolder, "")); err != nil {
		return nil, err
	}
	if err := s.replay(); err != nil {
		return nil, fmt.Errorf("ending an interrupted change: %w", err)
	}
	for _, f := range []folder{persistentFolder, stateFolder, runtimeFolder, removedFolder, lastingCopies, runtimeCopies} {
		s.sweep(s.path(f, ""))
	}
	return s, nil
}

// sweep removes temporary files. It is harmless if one cannot be removed.
func (s *Store) sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporaryPrefix) {
			_ = s.cfg.disk.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// path returns the path of a file in a folder; for "" that of the folder.
func (s *Store) path(f folder, name string) string {
	switch f {
	case persistentFolder:
		return filepath.Join(s.cfg.PersistentDir, name)
	case lastingCopies:
		return filepath.Join(s.cfg.StateDir, "networks", name)
	}
	return filepath.Join(s.cfg.RuntimeDir, string(f), name)
}

// fileName is the escaped name of a network, shortened with a hash where it is
// longer than file systems take (NAME_MAX is 255; 128 bytes escape to 384).
// Escape never writes two underscores in a row, so that no other name is the
// same.
func fileName(name string) string {
	const longest, kept = 200, 160
	escaped := network.Escape(name)
	if len(escaped) <= longest {
		return escaped
	}
	sum := sha256.Sum256([]byte(name))
	return escaped[:kept] + "__" + hex.EncodeToString(sum[:16])
}

// Persistent reports whether a persistent file defines the network.
func (s *Store) Persistent(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[name].persistent != ""
}

// Put stores a network's document: with persistent in its persistent file,
// which ends any runtime change to it, else until reboot, and where there is a
// persistent file until ForgetRuntimeChanges. It is the last good definition
// from then on. undo puts every byte back.
func (s *Store) Put(name string, doc []byte, persistent bool) (undo func() error, err error) {
	n, err := s.cfg.Parse(doc)
	if err != nil {
		return nil, fmt.Errorf("storing network %q: its document could not be read again: %w", name, err)
	} else if n.Name != name {
		return nil, fmt.Errorf("storing network %q: its document is of network %q", name, n.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.names[name]
	is := known{persistent: was.persistent, runtime: runtimeName(name, was.persistent != "")}
	f, file := runtimeFolder, is.runtime
	if persistent {
		if file, err = s.persistentFile(name, was.persistent); err != nil {
			return nil, fmt.Errorf("storing network %q: %w", name, err)
		}
		f, is = persistentFolder, known{persistent: file}
	}
	keep, err := keepOperation(f, kept{File: file, Network: n, Doc: doc})
	if err != nil {
		return nil, err
	}
	ops := []operation{{Folder: f, File: file, Data: doc}, keep}
	return s.change(name, is, append(ops, s.deletions(name, was, is)...))
}

// persistentFile is the file that a persistent network is written to: the one
// that it has, else a new one.
func (s *Store) persistentFile(name, has string) (string, error) {
	if err := s.writable(); err != nil {
		return "", err
	}
	if has != "" {
		return has, nil
	}
	file := fileName(name) + suffix
	if _, err := os.Lstat(s.path(persistentFolder, file)); err == nil {
		return "", fmt.Errorf("writing %s: %w", s.path(persistentFolder, file), ErrUnread)
	}
	return file, nil
}

// Remove removes a network: with persistent all of its files, else what is
// stored until reboot; a persistent file that stays is then without effect
// until ForgetRuntimeChanges. undo puts every byte back.
func (s *Store) Remove(name string, persistent bool) (undo func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.names[name]
	if was.persistent == "" && was.runtime == "" {
		return nil, fmt.Errorf("removing network %q: %w", name, ErrNotFound)
	}
	var is known
	var ops []operation
	if !persistent && was.persistent != "" {
		is = known{persistent: was.persistent, removed: true}
		ops = append(ops, operation{Folder: removedFolder, File: fileName(name), Data: []byte(name)})
	}
	return s.change(name, is, append(ops, s.deletions(name, was, is)...))
}

// deletions returns the operations that delete what a network no longer has.
func (s *Store) deletions(name string, was, is known) []operation {
	var ops []operation
	if was.persistent != "" && is.persistent == "" {
		ops = append(ops, forgetOperation(persistentFolder, name))
	}
	if was.runtime != "" && is.runtime == "" {
		ops = append(ops, forgetOperation(runtimeFolder, name))
	}
	if was.persistent != "" && was.persistent != is.persistent {
		ops = append(ops, operation{Folder: persistentFolder, File: was.persistent, Delete: true})
	}
	if was.runtime != "" && was.runtime != is.runtime {
		ops = append(ops, operation{Folder: runtimeFolder, File: was.runtime, Delete: true})
	}
	if was.removed && !is.removed {
		ops = append(ops, operation{Folder: removedFolder, File: fileName(name), Delete: true})
	}
	return ops
}

// ForgetRuntimeChanges takes what Read gave and lets the persistent files speak
// again: runtime changes and removals of persistent networks end, runtime
// networks stay unless a persistent file has their name by now. undo puts every
// byte back, and what was known of the files before.
func (s *Store) ForgetRuntimeChanges(read State) (undo func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]known)
	var ops []operation
	for name, k := range read.names() {
		is := afterReload(k)
		ops = append(ops, slices.DeleteFunc(s.deletions(name, k, is), func(o operation) bool { return o.Folder.isCopies() })...)
		if is != (known{}) {
			next[name] = is
		}
	}
	copyOperations, err := read.copyOperationsAfterReload(next)
	if err != nil {
		return nil, err
	}
	back, err := s.commit(append(ops, copyOperations...))
	if err != nil {
		return nil, fmt.Errorf("forgetting runtime changes: %w", err)
	}
	was := s.names
	s.names = next
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.names = was
		if err := back(); err != nil {
			return fmt.Errorf("restoring runtime changes: %w", err)
		}
		return nil
	}, nil
}

// afterReload returns what is left of a network when runtime changes are forgotten.
func afterReload(k known) known {
	if k.persistent == "" && !isChange(k.runtime) {
		return known{runtime: k.runtime}
	}
	return known{persistent: k.persistent}
}

func runtimeName(name string, change bool) string {
	if change {
		return fileName(name) + changeSuffix
	}
	return fileName(name) + suffix
}

func isChange(file string) bool { return strings.HasSuffix(file, changeSuffix) }

// change commits operations on one network's files and records the result.
func (s *Store) change(name string, is known, ops []operation) (undo func() error, err error) {
	back, err := s.commit(ops)
	if err != nil {
		return nil, fmt.Errorf("storing network %q: %w", name, err)
	}
	was := s.names[name]
	s.setKnown(name, is)
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.setKnown(name, was)
		if err := back(); err != nil {
			return fmt.Errorf("restoring the files of network %q: %w", name, err)
		}
		return nil
	}, nil
}

func (s *Store) setKnown(name string, k known) {
	if k == (known{}) {
		delete(s.names, name)
		return
	}
	s.names[name] = k
}
