package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// Entry is one stored network.
type Entry struct {
	Network    network.Network
	Doc        []byte
	Path       string // of the file that speaks
	Persistent bool   // there is a persistent file, be it this one or not
}

// State is everything that is stored.
type State struct {
	persistent map[string]document
	runtime    map[string]document
	removed    map[string]bool
}

// FileError is a file that is left out, and why.
type FileError struct {
	Path string
	Err  error
}

func (e FileError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e FileError) Unwrap() error { return e.Err }

type document struct {
	entry Entry
	file  string
}

// Current are the networks that are in force, by name.
func (s State) Current() []Entry {
	return s.entries(func(k known) known {
		if k.removed {
			return known{}
		}
		return k
	})
}

// AfterReload are the networks that are in force after ForgetRuntimeChanges.
func (s State) AfterReload() []Entry { return s.entries(afterReload) }

// entries gives the document that speaks of each network: the runtime one if
// there is one.
func (s State) entries(see func(known) known) []Entry {
	var out []Entry
	for name, k := range s.names() {
		k = see(k)
		if k == (known{}) {
			continue
		}
		d := s.persistent[name]
		if k.runtime != "" {
			d = s.runtime[name]
		}
		d.entry.Persistent = k.persistent != ""
		out = append(out, d.entry)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Network.Name, b.Network.Name) })
	return out
}

// names is what files there are of each network. A removal of what is no longer
// stored is nothing.
func (s State) names() map[string]known {
	all := make(map[string]known, len(s.persistent)+len(s.runtime))
	for name, d := range s.persistent {
		all[name] = known{persistent: d.file}
	}
	for name, d := range s.runtime {
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

// Load is Read for a start: what it finds is what the other methods know from
// then on.
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
// the others; err is for folders that cannot be read. The other methods go by
// what was known before, until ForgetRuntimeChanges is given the result.
func (s *Store) Read() (State, []FileError, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.finish(); err != nil {
		return State{}, nil, err
	}
	persistent, broken, err := s.loadFolder(persistentFolder)
	if err != nil {
		return State{}, nil, err
	}
	runtime, more, err := s.loadFolder(runtimeFolder)
	if err != nil {
		return State{}, nil, err
	}
	removed, rest, err := s.loadRemoved()
	if err != nil {
		return State{}, nil, err
	}
	state := State{persistent: persistent, runtime: runtime, removed: removed}
	return state, slices.Concat(broken, more, rest), nil
}

// loadFolder reads the *.xml files of a folder in the order of their names. Of
// two files with one network the one that the service would have written is
// used, else the first; the other is an error, for nobody can tell which was
// meant, and to leave out both would cut off a network over a forgotten copy.
func (s *Store) loadFolder(f folder) (map[string]document, []FileError, error) {
	files, err := listFolder(s.path(f, ""))
	if err != nil {
		return nil, nil, err
	}
	found := make(map[string]document, len(files))
	var broken []FileError
	for _, file := range files {
		if !strings.HasSuffix(file, suffix) {
			continue
		}
		d, err := s.loadDocument(f, file)
		if err != nil {
			broken = append(broken, FileError{s.path(f, file), err})
			continue
		}
		name := d.entry.Network.Name
		other, twice := found[name]
		if twice && file == fileName(name)+suffix {
			d, other = other, d
		}
		if twice {
			broken = append(broken, FileError{d.entry.Path, fmt.Errorf(
				"network %q is defined in %s too, which is used; remove one of the two", name, other.entry.Path)})
			d = other
		}
		found[name] = d
	}
	return found, broken, nil
}

func (s *Store) loadDocument(f folder, file string) (document, error) {
	path := s.path(f, file)
	doc, _, err := readFile(path, network.MaxXMLBytes)
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

func (s *Store) loadRemoved() (map[string]bool, []FileError, error) {
	files, err := listFolder(s.path(removedFolder, ""))
	if err != nil {
		return nil, nil, err
	}
	removed := make(map[string]bool, len(files))
	var broken []FileError
	for _, file := range files {
		path := s.path(removedFolder, file)
		name, _, err := readFile(path, network.MaxNameBytes)
		if err == nil && fileName(string(name)) != file {
			err = errors.New("it does not hold the name of the network that its file name says; remove it")
		}
		if err != nil {
			broken = append(broken, FileError{path, err})
			continue
		}
		removed[string(name)] = true
	}
	return removed, broken, nil
}

// listFolder gives the names in a folder, sorted, without hidden ones. A folder
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
