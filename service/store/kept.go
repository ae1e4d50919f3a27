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
	// mostKeptBytes is a document in base64 and the value that was read in it.
	mostKeptBytes = 2*network.MaxXMLBytes + 1<<16
)

// mostSyncs is how many copies are had on the disk one by one, a millisecond or
// more each. Of more, which a first start writes, all are at once: a copy that a
// power cut leaves broken before is as one that is not there.
const mostSyncs = 16

// kept is the last good definition of one network: what a file said when it was
// last put in force, whatever has become of the file since.
type kept struct {
	File string // in its folder
	// Network is what was read in the document then. It counts where a later
	// version of the service reads the document no more.
	Network network.Network
	Doc     []byte
}

// copies are the last good definitions of a folder's networks.
type copies struct {
	kept    map[string]kept
	useless []string // files that are none
	ever    bool     // the service has kept some before
}

// same reports whether the copy is of this document in this file.
func (k kept) same(d document) bool {
	return k.File == d.file && bytes.Equal(k.Doc, d.entry.Doc) && k.Network.Equal(d.entry.Network)
}

// copiesOf is where the last good definitions of a folder's files are: those
// of persistent files outlive a reboot, those of runtime files must not.
func copiesOf(f folder) folder {
	if f == persistentFolder {
		return lastingCopies
	}
	return runtimeCopies
}

func (f folder) isCopies() bool { return f == lastingCopies || f == runtimeCopies }

// keeping is the operation that remembers a definition as the last good one.
func keeping(f folder, k kept) (operation, error) {
	data, err := json.Marshal(k)
	if err != nil {
		return operation{}, fmt.Errorf("writing down the last good definition of network %q: %w", k.Network.Name, err)
	}
	return operation{Folder: copiesOf(f), File: fileName(k.Network.Name) + keptSuffix, Data: data}, nil
}

// forgetting is the operation that takes a network's last good definition away.
func forgetting(f folder, name string) operation {
	return operation{Folder: copiesOf(f), File: fileName(name) + keptSuffix, Delete: true}
}

// loadKept reads the last good definitions of a folder's networks. One that
// cannot be used is as one that is not there: it is written again from its
// file.
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
	data, _, err := trusted.Read(path, mostKeptBytes)
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(data, &k)
}

// document is the last good definition in the place of a file that cannot be
// used. What the document says today counts where it can still be read.
func (s *Store) document(f folder, k kept, fault FileError) document {
	n := k.Network
	if now, err := s.cfg.Parse(k.Doc); err == nil && now.Name == n.Name {
		n = now
	}
	fault.Network = n.Name
	return document{Entry{Network: n, Doc: k.Doc, Path: s.path(f, k.File), Fault: &fault, kept: true}, k.File}
}

// allKept are the last good definitions in the place of a folder's files, none
// of which can be used for what is wrong with the folder.
func (s *Store) allKept(f folder, c copies, fault FileError) loaded {
	l := loaded{documents: make(map[string]document, len(c.kept)), copies: c, broken: []FileError{fault}}
	for name, k := range c.kept {
		l.documents[name] = s.document(f, k, fault)
	}
	return l
}

// stand puts the last good definition in the place of each file that cannot be
// used. A network that another file speaks of needs none.
func (s *Store) stand(f folder, l *loaded) {
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

// copying are the operations that make the last good definitions what a folder
// says now. A file that cannot be used leaves its copy alone, and so does one
// that was refused; a file that is gone takes its copy with it.
func (l loaded) copying(f folder, stays func(name string) bool, refused map[string]bool) (ops []operation, err error) {
	for _, file := range l.useless {
		ops = append(ops, operation{Folder: copiesOf(f), File: file, Delete: true})
	}
	for name := range l.kept {
		if _, there := l.documents[name]; !there || !stays(name) {
			ops = append(ops, forgetting(f, name))
		}
	}
	for name, d := range l.documents {
		k, has := l.kept[name]
		if d.entry.Fault != nil || refused[name] || !stays(name) || has && k.same(d) {
			continue
		}
		op, err := keeping(f, kept{File: d.file, Network: d.entry.Network, Doc: d.entry.Doc})
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// Keep remembers what Load gave as the last good definitions: the caller has
// put it in force. refused are networks whose documents it could not use; their
// last good definitions stay, for Entry.Former. Each copy is made for itself,
// and what fails is tried at the next start.
func (s *Store) Keep(state State, refused map[string]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	everything := func(string) bool { return true }
	var errs []error
	for _, f := range []folder{persistentFolder, runtimeFolder} {
		ops, err := state.of(f).copying(f, everything, refused)
		errs = append(errs, err)
		if err = s.cfg.disk.MkdirAll(s.path(copiesOf(f), "")); err != nil {
			errs = append(errs, err)
			continue
		}
		many := len(ops) > mostSyncs && copiesOf(f).lasts()
		for _, op := range ops {
			errs = append(errs, s.make(op, copiesOf(f).lasts() && !many))
		}
		if many {
			errs = append(errs, s.cfg.disk.SyncAll(s.path(copiesOf(f), "")))
		} else {
			errs = append(errs, s.settle(ops))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keeping the last good definitions: %w", err)
	}
	return nil
}

// copyingAfterReload are the operations for what is in force after a reload.
func (s State) copyingAfterReload(next map[string]known) ([]operation, error) {
	lasting, err := s.persistent.copying(persistentFolder, func(name string) bool { return next[name].persistent != "" }, nil)
	if err != nil {
		return nil, err
	}
	runtime, err := s.runtime.copying(runtimeFolder, func(name string) bool { return next[name].runtime != "" }, nil)
	return append(lasting, runtime...), err
}

// Faults are the store's own files that could not be used since Open and were
// moved out of the way.
func (s *Store) Faults() []FileError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults)
}

// writable reports what keeps the service from writing into the persistent
// folder: one that is gone must not be made anew, empty, since files that are
// missing in a folder which can be read are taken for removed.
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

// makeRuntimeFolder makes the folder of runtime networks. Where it is gone and
// the last good definitions are not, the service, whose own folder it is, puts
// its files back, all of them in one step, and Faults tells of it.
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
