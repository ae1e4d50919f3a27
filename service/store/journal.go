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

// maxJournalBytes bounds what is read of our own files: the undo operations of 4,096
// changed networks.
const maxJournalBytes = 1 << 30

// operation writes one file into a folder or deletes it. It is idempotent.
type operation struct {
	Folder folder
	File   string
	Delete bool
	Data   []byte      `json:",omitempty"`
	Mode   fs.FileMode `json:",omitempty"` // 0: the file's present mode, or that of new files
}

// commit applies all operations or, on an error, none; undo reverts each. One
// operation is atomic by itself. Several are journalled first, and Open completes
// what a killed run began. The journal is in the runtime folder: after a loss of
// power no runtime file is left that could contradict a persistent one. Copies need
// no journal: a start compares them with the files. Order: copies are deleted before
// their file and written after it, so that there is never a copy without its file.
func (s *Store) commit(ops []operation) (undo func() error, err error) {
	if err := errors.Join(s.finish(), s.makeRuntimeFolder()); err != nil {
		return nil, err
	}
	slices.SortStableFunc(ops, func(a, b operation) int { return a.order() - b.order() })
	inverse := make([]operation, 0, len(ops))
	for i := range slices.Backward(ops) {
		back, err := s.inverse(&ops[i])
		if err != nil {
			return nil, err
		}
		inverse = append(inverse, back)
	}
	if err := s.apply(ops); err != nil {
		return nil, errors.Join(err, s.rollBack(inverse))
	}
	return func() error {
		if err := s.finish(); err != nil {
			return err
		}
		return s.apply(inverse)
	}, nil
}

func (o operation) order() int {
	switch {
	case !o.Folder.isCopies():
		return 1
	case o.Delete:
		return 0
	}
	return 2
}

// finish completes a change whose journal still exists because its end failed.
func (s *Store) finish() error {
	if !s.journal {
		return nil
	}
	if err := s.replay(); err != nil {
		return fmt.Errorf("ending an interrupted change: %w", err)
	}
	return nil
}

func (s *Store) apply(ops []operation) error {
	if files := slices.DeleteFunc(slices.Clone(ops), func(o operation) bool { return o.Folder.isCopies() }); len(files) > 1 {
		if err := s.writeJSON(journalFile, ops); err != nil {
			return fmt.Errorf("writing down what is to be changed: %w", err)
		}
		s.journal = true
	}
	return s.applyAll(ops)
}

func (s *Store) applyAll(ops []operation) error {
	for _, op := range ops {
		if err := s.applyOne(op); err != nil {
			return fmt.Errorf("changing %s: %w", s.path(op.Folder, op.File), err)
		}
	}
	if err := s.syncFolders(ops); err != nil {
		return err
	}
	return s.endJournal()
}

// syncFolders syncs the folders that outlive a reboot to the disk.
func (s *Store) syncFolders(ops []operation) error {
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

// rollBack undoes what a failed change did, and touches nothing else. If that fails
// too, its journal makes finish or Open retry.
func (s *Store) rollBack(inverse []operation) error {
	inverse = slices.DeleteFunc(slices.Clone(inverse), s.isApplied)
	if s.journal {
		// Where there is no room for the journal there may be for the files.
		_ = s.writeJSON(journalFile, inverse)
	}
	if err := s.applyAll(inverse); err != nil {
		return fmt.Errorf("going back: %w", err)
	}
	return nil
}

func (s *Store) isApplied(op operation) bool {
	data, mode, err := trusted.ReadOwn(s.path(op.Folder, op.File), maxJournalBytes)
	if op.Delete {
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && mode == op.Mode && bytes.Equal(data, op.Data)
}

func (s *Store) applyOne(op operation) error { return s.applyOperation(op, op.Folder.lasts()) }

// applyOperation applies one operation; with sync, what it writes is on the disk when
// it returns.
func (s *Store) applyOperation(op operation, sync bool) error {
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

// inverse returns the operation that restores the file as it is, usable or not. The
// new file gets the mode of the one that it replaces, without write permission for
// others.
func (s *Store) inverse(op *operation) (operation, error) {
	back := operation{Folder: op.Folder, File: op.File}
	data, mode, err := trusted.ReadOwn(s.path(op.Folder, op.File), maxJournalBytes)
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

// replay completes the change that was in progress when the service was killed.
func (s *Store) replay() error {
	var ops []operation
	err := s.readJSON(journalFile, &ops)
	if errors.Is(err, fs.ErrNotExist) {
		s.journal = false
		return nil
	}
	for _, op := range ops {
		if err == nil && !op.isValid() {
			err = fmt.Errorf("it speaks of a file %q in folder %q, which the service does not write", op.File, op.Folder)
		}
	}
	if err != nil {
		s.journal = false
		return s.putAside(journalFile, err)
	}
	s.journal = true
	return s.applyAll(ops)
}

// isValid reports whether an operation is on a file of the store's own folders.
func (o operation) isValid() bool {
	places := []folder{persistentFolder, runtimeFolder, removedFolder, lastingCopies, runtimeCopies}
	return slices.Contains(places, o.Folder) && o.File != "" && o.File[0] != '.' && o.File == filepath.Base(o.File)
}

// putAside renames a file of the store's own that cannot be used, so that it can be
// inspected, and adds it to Faults.
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
	data, _, err := trusted.Read(path, maxJournalBytes)
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
