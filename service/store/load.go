package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

// Entry is one stored network.
type Entry struct {
	Network    network.Network
	Doc        []byte
	Path       string // of the file that defines it
	Persistent bool   // there is a persistent file, be it this one or not
	// Fault is a file of this network that cannot be used: the one at Path, in
	// whose place the last good definition stands, or the persistent one below
	// a runtime change. nil where all is well.
	Fault *FileError

	former *Entry
	kept   bool
}

// Standing returns 2 for a network that is in force as it is, by the last good
// definition, 1 for one whose file has changed since, 0 for a new one.
func (e Entry) Standing() int {
	switch {
	case e.former != nil:
		return 1
	case e.kept:
		return 2
	}
	return 0
}

// Former returns the last good definition if the file has changed since: it is used
// if the caller cannot put the file's definition in force.
func (e Entry) Former() (Entry, bool) {
	if e.former == nil {
		return Entry{}, false
	}
	f := *e.former
	f.Persistent = e.Persistent
	return f, true
}

// State is everything that is stored.
type State struct {
	persistent, runtime loaded
	removed             map[string]bool
}

// of returns what was loaded of a folder.
func (s State) of(f folder) loaded {
	if f == persistentFolder {
		return s.persistent
	}
	return s.runtime
}

// loaded is one folder.
type loaded struct {
	documents map[string]document
	broken    []FileError
	copies
}

// FileError is a file or folder that cannot be used, and why.
type FileError struct {
	Path string
	// Network is in force by its last good definition, which the file held; ""
	// for a file that never was good.
	Network string
	Err     error
}

func (e FileError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e FileError) Unwrap() error { return e.Err }

type document struct {
	entry Entry
	file  string
}

// Current returns the networks that are in force, by name.
func (s State) Current() []Entry {
	return s.entries(func(k known) known {
		if k.removed {
			return known{}
		}
		return k
	})
}

// AfterReload returns the networks that are in force after ForgetRuntimeChanges.
func (s State) AfterReload() []Entry { return s.entries(afterReload) }

// entries returns the document that defines each network: the runtime one if there is
// one.
func (s State) entries(see func(known) known) []Entry {
	var out []Entry
	for name, k := range s.names() {
		k = see(k)
		if k == (known{}) {
			continue
		}
		d := s.persistent.documents[name]
		if k.runtime != "" {
			below := d.entry.Fault
			if d = s.runtime.documents[name]; d.entry.Fault == nil {
				d.entry.Fault = below
			}
		}
		d.entry.Persistent = k.persistent != ""
		out = append(out, d.entry)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Network.Name, b.Network.Name) })
	return out
}

// names returns which files there are of each network.
func (s State) names() map[string]known {
	all := make(map[string]known, len(s.persistent.documents)+len(s.runtime.documents))
	for name, d := range s.persistent.documents {
		all[name] = known{persistent: d.file}
	}
	for name, d := range s.runtime.documents {
		k := all[name]
		k.runtime = d.file
		all[name] = k
	}
	for name := range s.removed {
		k := all[name]
		k.removed = true
		all[name] = k
	}
	return all
}

// Load is Read for a start: the other methods use the result from then on. The caller
// passes what it has put in force to Keep.
func (s *Store) Load() (State, []FileError, error) {
	state, broken, err := s.Read()
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.names = state.names()
	}
	return state, broken, err
}

// Read reads all files. Those that cannot be used are reported and do not hide
// the others; in their place stands the last good definition of the network. A
// folder that cannot be used is as if each of its files could not. err is for
// what leaves nothing to go by. The other methods go by what was known before,
// until ForgetRuntimeChanges is given the result.
func (s *Store) Read() (State, []FileError, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.finish(), s.makeRuntimeFolder()); err != nil {
		return State{}, nil, err
	}
	persistent, err := s.loadFolder(persistentFolder)
	if err != nil {
		return State{}, nil, err
	}
	runtime, err := s.loadFolder(runtimeFolder)
	if err != nil {
		return State{}, nil, err
	}
	removed, rest := s.loadRemoved()
	state := State{persistent: persistent, runtime: runtime, removed: removed}
	return state, slices.Concat(persistent.broken, runtime.broken, rest), nil
}

// loadFolder reads the *.xml files of a folder and puts last good definitions
// in the place of those that cannot be used. Where there are none to go by, for
// a fault of their own, nothing may be taken for absent.
func (s *Store) loadFolder(f folder) (loaded, error) {
	last, lost := s.loadKept(f)
	files, err := s.listNetworks(f, last)
	if err != nil && (lost != nil || !last.ever) {
		return loaded{}, errors.Join(err, lost)
	}
	if err != nil {
		return s.allKept(f, last, FileError{Path: s.path(f, ""), Err: err}), nil
	}
	l := s.loadFiles(f, files, last)
	if lost != nil && len(l.broken) > 0 {
		return loaded{}, errors.Join(l.broken[0], lost)
	}
	s.substitute(f, &l)
	return l, nil
}

// listNetworks lists a folder, which has to be there if files of it were in
// force.
func (s *Store) listNetworks(f folder, last copies) ([]string, error) {
	dir := s.path(f, "")
	if err := trusted.CheckFolder(dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); len(last.kept) > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil, folderGone(len(last.kept))
	}
	return listFolder(dir)
}

// loadFiles reads files in the order of their names. Of two with one network
// the one that is in force is used, else the one that the service would have
// written, else the first; the other is an error, for nobody can tell which was
// meant, and to leave out both would cut off a network over a forgotten copy.
func (s *Store) loadFiles(f folder, files []string, last copies) loaded {
	l := loaded{documents: make(map[string]document, len(files)), copies: last}
	for _, file := range files {
		if !strings.HasSuffix(file, suffix) {
			continue
		}
		d, err := s.loadDocument(f, file)
		if err != nil {
			l.broken = append(l.broken, FileError{Path: s.path(f, file), Err: err})
			continue
		}
		name := d.entry.Network.Name
		other, twice := l.documents[name]
		if twice && last.claim(name, file) > last.claim(name, other.file) {
			d, other = other, d
		}
		if twice {
			l.broken = append(l.broken, FileError{Path: d.entry.Path, Err: fmt.Errorf(
				"network %q is defined in %s too, which is used; remove one of the two", name, other.entry.Path)})
			d = other
		}
		l.documents[name] = d
	}
	for name, d := range l.documents {
		k, was := last.kept[name]
		if d.entry.kept = was; was && !k.same(d) {
			former := s.document(f, k, FileError{}).entry
			former.Fault = nil
			d.entry.former = &former
		}
		l.documents[name] = d
	}
	return l
}

// claim returns the priority of a file among several that define a network.
func (c copies) claim(name, file string) int {
	switch {
	case c.kept[name].File == file:
		return 2
	case file == fileName(name)+suffix:
		return 1
	}
	return 0
}

func (s *Store) loadDocument(f folder, file string) (document, error) {
	path := s.path(f, file)
	doc, _, err := trusted.Read(path, network.MaxXMLBytes)
	if err != nil {
		return document{}, err
	}
	n, err := s.cfg.Parse(doc)
	if err != nil {
		return document{}, err
	}
	if f == runtimeFolder && file != runtimeName(n.Name, false) && file != runtimeName(n.Name, true) {
		return document{}, fmt.Errorf("it holds network %q, which the service keeps under another file name; remove it", n.Name)
	}
	return document{Entry{Network: n, Doc: doc, Path: path}, file}, nil
}

// loadRemoved returns which networks were removed until the next reload. A record
// that cannot be read is ignored: its network is in force again.
func (s *Store) loadRemoved() (map[string]bool, []FileError) {
	dir := s.path(removedFolder, "")
	err := trusted.CheckFolder(dir)
	var files []string
	if err == nil {
		files, err = listFolder(dir)
	}
	if err != nil {
		return nil, []FileError{{Path: dir, Err: err}}
	}
	removed := make(map[string]bool, len(files))
	var broken []FileError
	for _, file := range files {
		path := s.path(removedFolder, file)
		name, _, err := trusted.Read(path, network.MaxNameBytes)
		if err == nil && fileName(string(name)) != file {
			err = errors.New("it does not hold the name of the network that its file name says; remove it")
		}
		if err != nil {
			broken = append(broken, FileError{Path: path, Err: err})
			continue
		}
		removed[string(name)] = true
	}
	return removed, broken
}

// listFolder returns the names in a folder, sorted, without hidden ones. A folder
// that does not exist is empty.
func listFolder(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing stored networks: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
