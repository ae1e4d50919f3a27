package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

const (
	keptSuffix = ".json"
	// maxKeptBytes is a document in base64 and the value that was read from it.
	maxKeptBytes = 2*network.MaxXMLBytes + 1<<16
)

// maxSyncs is how many copies are synced one by one, a millisecond or more each.
// More, which a first start writes, are synced at once: a copy that a power cut
// breaks before is treated as missing.
const maxSyncs = 16

// kept is the last good definition of one network: what a file held when it was last
// put in force, whatever has happened to the file since.
type kept struct {
	File string // in its folder
	// Network is what was read from the document then. It is used if a later version
	// of the service cannot read the document.
	Network network.Network
	Doc     []byte
}

// copies are the last good definitions of a folder's networks.
type copies struct {
	kept    map[string]kept
	useless []string // files that are not copies
	ever    bool     // the service has kept copies before
}

// same reports whether the copy is of this document in this file.
func (k kept) same(d document) bool {
	return k.File == d.file && bytes.Equal(k.Doc, d.entry.Doc) && k.Network.Equal(d.entry.Network)
}

// copiesOf returns the folder of the last good definitions of a folder's files: those
// of persistent files outlive a reboot, those of runtime files must not.
func copiesOf(f folder) folder {
	if f == persistentFolder {
		return lastingCopies
	}
	return runtimeCopies
}

func (f folder) isCopies() bool { return f == lastingCopies || f == runtimeCopies }

// keepOperation returns the operation that records a definition as the last good one.
func keepOperation(f folder, k kept) (operation, error) {
	data, err := json.Marshal(k)
	if err != nil {
		return operation{}, fmt.Errorf("writing down the last good definition of network %q: %w", k.Network.Name, err)
	}
	return operation{Folder: copiesOf(f), File: fileName(k.Network.Name) + keptSuffix, Data: data}, nil
}

// forgetOperation returns the operation that deletes a network's last good definition.
func forgetOperation(f folder, name string) operation {
	return operation{Folder: copiesOf(f), File: fileName(name) + keptSuffix, Delete: true}
}

// loadKept returns the last good definitions of a folder's networks. One that cannot
// be used is treated as missing: it is written again from its file.
func (s *Store) loadKept(f folder) (c copies, err error) {
	dir := s.path(copiesOf(f), "")
	c.kept = make(map[string]kept)
	err = trusted.CheckFolder(dir)
	var entries []os.DirEntry
	if err == nil {
		entries, err = os.ReadDir(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	c.ever = true
	if err != nil {
		return c, fmt.Errorf("reading the last good definitions: %w", err)
	}
	for _, e := range entries {
		k, err := readKept(filepath.Join(dir, e.Name()))
		if err == nil && fileName(k.Network.Name)+keptSuffix == e.Name() {
			c.kept[k.Network.Name] = k
		} else {
			c.useless = append(c.useless, e.Name())
		}
	}
	return c, nil
}

func readKept(path string) (k kept, err error) {
	data, _, err := trusted.Read(path, maxKeptBytes)
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(data, &k)
}

// document returns the last good definition in place of a file that cannot be used.
// If the document can still be parsed, the result of that is used.
func (s *Store) document(f folder, k kept, fault FileError) document {
	n := k.Network
	if now, err := s.cfg.Parse(k.Doc); err == nil && now.Name == n.Name {
		n = now
	}
	fault.Network = n.Name
	return document{Entry{Network: n, Doc: k.Doc, Path: s.path(f, k.File), Fault: &fault, kept: true}, k.File}
}

// allKept returns the last good definitions in place of all files of a folder that
// cannot be used.
func (s *Store) allKept(f folder, c copies, fault FileError) loaded {
	l := loaded{documents: make(map[string]document, len(c.kept)), copies: c, broken: []FileError{fault}}
	for name, k := range c.kept {
		l.documents[name] = s.document(f, k, fault)
	}
	return l
}

// substitute puts the last good definition in place of each file that cannot be used.
// A network that another file defines needs none.
func (s *Store) substitute(f folder, l *loaded) {
	of := make(map[string]string, len(l.kept))
	for name, k := range l.kept {
		if _, spoken := l.documents[name]; !spoken {
			of[s.path(f, k.File)] = name
		}
	}
	for i, b := range l.broken {
		if name, was := of[b.Path]; was {
			l.broken[i].Network = name
			l.documents[name] = s.document(f, l.kept[name], b)
		}
	}
}

// copyOperations returns the operations that make the last good definitions equal to
// a folder's content. The copies of files that cannot be used or were refused stay;
// the copy of a deleted file is deleted.
func (l loaded) copyOperations(f folder, stays func(name string) bool, refused map[string]bool) (ops []operation, err error) {
	for _, file := range l.useless {
		ops = append(ops, operation{Folder: copiesOf(f), File: file, Delete: true})
	}
	for name := range l.kept {
		if _, there := l.documents[name]; !there || !stays(name) {
			ops = append(ops, forgetOperation(f, name))
		}
	}
	for name, d := range l.documents {
		k, has := l.kept[name]
		if d.entry.Fault != nil || refused[name] || !stays(name) || has && k.same(d) {
			continue
		}
		op, err := keepOperation(f, kept{File: d.file, Network: d.entry.Network, Doc: d.entry.Doc})
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// Keep records what Load returned as the last good definitions: the caller has put it
// in force. refused are networks whose documents it could not use; their last good
// definitions stay, for Entry.Former. Each copy is written separately, and failures
// are retried at the next start.
func (s *Store) Keep(state State, refused map[string]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	everything := func(string) bool { return true }
	var errs []error
	for _, f := range []folder{persistentFolder, runtimeFolder} {
		ops, err := state.of(f).copyOperations(f, everything, refused)
		errs = append(errs, err)
		if err = s.cfg.disk.MkdirAll(s.path(copiesOf(f), "")); err != nil {
			errs = append(errs, err)
			continue
		}
		many := len(ops) > maxSyncs && copiesOf(f).lasts()
		for _, op := range ops {
			errs = append(errs, s.applyOperation(op, copiesOf(f).lasts() && !many))
		}
		if many {
			errs = append(errs, s.cfg.disk.SyncAll(s.path(copiesOf(f), "")))
		} else {
			errs = append(errs, s.syncFolders(ops))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keeping the last good definitions: %w", err)
	}
	return nil
}

// copyOperationsAfterReload returns the operations for what is in force after a
// reload.
func (s State) copyOperationsAfterReload(next map[string]known) ([]operation, error) {
	lasting, err := s.persistent.copyOperations(persistentFolder, func(name string) bool { return next[name].persistent != "" }, nil)
	if err != nil {
		return nil, err
	}
	runtime, err := s.runtime.copyOperations(runtimeFolder, func(name string) bool { return next[name].runtime != "" }, nil)
	return append(lasting, runtime...), err
}

// Faults returns the store's own files that could not be used since Open and were
// renamed.
func (s *Store) Faults() []FileError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults)
}

// writable returns why the service cannot write into the persistent folder: a missing
// one must not be created, as files that are missing in a readable folder are taken
// for removed.
func (s *Store) writable() error {
	dir := s.path(persistentFolder, "")
	if err := trusted.CheckFolder(dir); err != nil {
		return err
	}
	count := 0
	for _, k := range s.names {
		if k.persistent != "" {
			count++
		}
	}
	if _, err := os.Stat(dir); count > 0 && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("using folder %s: %w", dir, folderGone(count))
	}
	return nil
}

func folderGone(networks int) error {
	return fmt.Errorf("the folder of %d networks is gone: put it back, or make an empty one if they are to go, and reload", networks)
}

// makeRuntimeFolder creates the folder of runtime networks. If it is gone and the
// last good definitions are not, it restores its files, all in one step, and adds it
// to Faults: the folder is the service's own.
func (s *Store) makeRuntimeFolder() error {
	dir, d := s.path(runtimeFolder, ""), s.cfg.disk
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	last, err := s.loadKept(runtimeFolder)
	if err != nil || len(last.kept) == 0 {
		return d.MkdirAll(dir)
	}
	anew := s.path(stateFolder, temporaryPrefix+string(runtimeFolder))
	if err := errors.Join(os.RemoveAll(anew), d.MkdirAll(anew)); err != nil { // it may be of a killed run
		return err
	}
	for _, k := range last.kept {
		if err := write(d, filepath.Join(anew, k.File), k.Doc, newFileMode, false); err != nil {
			return err
		}
	}
	if err := d.Rename(anew, dir); err != nil {
		return err
	}
	s.faults = append(s.faults, FileError{Path: dir, Err: fmt.Errorf(
		"it was gone; the files of %d networks were written anew from their last good definitions, nothing need be done", len(last.kept))})
	return nil
}
