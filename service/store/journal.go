package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

// mostJournalBytes bounds what is read of our own files: the undoing of 4,096
// changed networks.
const mostJournalBytes = 1 << 30

// operation puts one file into a folder or takes it away. Doing it twice is the
// same as once.
type operation struct {
	Folder folder
	File   string
	Delete bool
	Data   []byte      `json:",omitempty"`
	Mode   fs.FileMode `json:",omitempty"` // 0: the file's present mode, or that of new files
}

// commit does all operations or, on an error, none; undo does the opposite of
// each. One operation is atomic by itself. Several are written down first, and
// Open goes on with what a killed run began. The journal is in the runtime
// folder: after a loss of power no runtime file is left that could contradict a
// persistent one. Copies need no journal: a start compares them with the files.
// They go before their file and come after it, so that none is of a file that
// was not there.
func (s *Store) commit(ops []operation) (undo func() error, err error) {
	if err := errors.Join(s.finish(), s.makeRuntimeFolder()); err != nil {
		return nil, err
	}
	slices.SortStableFunc(ops, func(a, b operation) int { return a.turn() - b.turn() })
	inverse := make([]operation, 0, len(ops))
	for i := range slices.Backward(ops) {
		back, err := s.inverse(&ops[i])
		if err != nil {
			return nil, err
		}
		inverse = append(inverse, back)
	}
	if err := s.do(ops); err != nil {
		return nil, errors.Join(err, s.goBack(inverse))
	}
	return func() error {
		if err := s.finish(); err != nil {
			return err
		}
		return s.do(inverse)
	}, nil
}

func (o operation) turn() int {
	switch {
	case !o.Folder.isCopies():
		return 1
	case o.Delete:
		return 0
	}
	return 2
}

// finish ends a change whose journal is still there because its end failed.
func (s *Store) finish() error {
	if !s.journal {
		return nil
	}
	if err := s.replay(); err != nil {
		return fmt.Errorf("ending an interrupted change: %w", err)
	}
	return nil
}

func (s *Store) do(ops []operation) error {
	if files := slices.DeleteFunc(slices.Clone(ops), func(o operation) bool { return o.Folder.isCopies() }); len(files) > 1 {
		if err := s.writeJSON(journalFile, ops); err != nil {
			return fmt.Errorf("writing down what is to be changed: %w", err)
		}
		s.journal = true
	}
	return s.doAll(ops)
}

func (s *Store) doAll(ops []operation) error {
	for _, op := range ops {
		if err := s.doOne(op); err != nil {
			return fmt.Errorf("changing %s: %w", s.path(op.Folder, op.File), err)
		}
	}
	if err := s.settle(ops); err != nil {
		return err
	}
	return s.endJournal()
}

// settle has the folders that outlive a reboot on the disk as they are.
func (s *Store) settle(ops []operation) error {
	for _, f := range []folder{persistentFolder, lastingCopies} {
		if !slices.ContainsFunc(ops, func(o operation) bool { return o.Folder == f }) {
			continue
		}
		if err := ignoreMissing(s.cfg.disk.SyncDir(s.path(f, ""))); err != nil {
			return fmt.Errorf("writing folder %s to the disk: %w", s.path(f, ""), err)
		}
	}
	return nil
}

func (s *Store) endJournal() error {
	if !s.journal {
		return nil
	}
	if err := ignoreMissing(s.cfg.disk.Remove(s.path(stateFolder, journalFile))); err != nil {
		return err
	}
	s.journal = false
	return nil
}

// goBack undoes what a failed change did, and touches nothing that it did not
// change. Where that fails too, its journal has finish or Open try again.
func (s *Store) goBack(inverse []operation) error {
	inverse = slices.DeleteFunc(slices.Clone(inverse), s.isDone)
	if s.journal {
		// Where there is no room for the journal there may be for the files.
		_ = s.writeJSON(journalFile, inverse)
	}
	if err := s.doAll(inverse); err != nil {
		return fmt.Errorf("going back: %w", err)
	}
	return nil
}

func (s *Store) isDone(op operation) bool {
	data, mode, err := trusted.ReadOwn(s.path(op.Folder, op.File), mostJournalBytes)
	if op.Delete {
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && mode == op.Mode && bytes.Equal(data, op.Data)
}

func (s *Store) doOne(op operation) error { return s.make(op, op.Folder.lasts()) }

// make makes one operation; sync has what it writes on the disk when it returns.
func (s *Store) make(op operation, sync bool) error {
	path := s.path(op.Folder, op.File)
	if op.Delete {
		return ignoreMissing(s.cfg.disk.Remove(path))
	}
	if op.Folder.lasts() || op.Folder == runtimeCopies {
		if err := s.cfg.disk.MkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
	}
	mode := op.Mode
	if mode == 0 {
		mode = newFileMode
	}
	return write(s.cfg.disk, path, op.Data, mode, sync)
}

// inverse is the operation that leads back to the file as it is, be it usable or
// not. The new file gets the mode of the one that it replaces, but that others
// may not write it.
func (s *Store) inverse(op *operation) (operation, error) {
	back := operation{Folder: op.Folder, File: op.File}
	data, mode, err := trusted.ReadOwn(s.path(op.Folder, op.File), mostJournalBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist), err != nil && op.Folder.isCopies():
		back.Delete = true // also of a copy that is none
	case err != nil:
		return back, FileError{Path: s.path(op.Folder, op.File), Err: err}
	default:
		back.Data, back.Mode, op.Mode = data, mode, mode&^trusted.OthersWrite
	}
	return back, nil
}

// replay ends the change that was under way when the service was killed.
func (s *Store) replay() error {
	var ops []operation
	err := s.readJSON(journalFile, &ops)
	if errors.Is(err, fs.ErrNotExist) {
		s.journal = false
		return nil
	}
	for _, op := range ops {
		if err == nil && !op.inPlace() {
			err = fmt.Errorf("it speaks of a file %q in folder %q, which the service does not write", op.File, op.Folder)
		}
	}
	if err != nil {
		s.journal = false
		return s.putAside(journalFile, err)
	}
	s.journal = true
	return s.doAll(ops)
}

// inPlace reports whether an operation is on a file of the store's own folders.
func (o operation) inPlace() bool {
	places := []folder{persistentFolder, runtimeFolder, removedFolder, lastingCopies, runtimeCopies}
	return slices.Contains(places, o.Folder) && o.File != "" && o.File[0] != '.' && o.File == filepath.Base(o.File)
}

// putAside moves a file of the store's own that cannot be used out of the way,
// for whoever wants to look at it, and has Faults tell of it.
func (s *Store) putAside(name string, why error) error {
	path := s.path(stateFolder, name)
	if err := s.cfg.disk.Rename(path, path+asideSuffix); err != nil {
		return fmt.Errorf("moving a file out of the way that cannot be used: %w; remove %s", errors.Join(err, why), path)
	}
	s.faults = append(s.faults, FileError{Path: path, Err: fmt.Errorf("%w; it was renamed to %s: look at it, then remove it", why, name+asideSuffix)})
	return nil
}

func (s *Store) writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return write(s.cfg.disk, s.path(stateFolder, name), data, newFileMode, false)
}

func (s *Store) readJSON(name string, v any) error {
	path := s.path(stateFolder, name)
	data, _, err := trusted.Read(path, mostJournalBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("it cannot be used: %w", err)
	}
	return nil
}
