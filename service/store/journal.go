package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
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
// persistent one.
func (s *Store) commit(ops []operation) (undo func() error, err error) {
	if err := s.finish(); err != nil {
		return nil, err
	}
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
	if len(ops) > 1 {
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
	return s.endJournal()
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
	data, mode, err := readFile(s.path(op.Folder, op.File), mostJournalBytes)
	if op.Delete {
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && mode == op.Mode && bytes.Equal(data, op.Data)
}

func (s *Store) doOne(op operation) error {
	path, lasts := s.path(op.Folder, op.File), op.Folder == persistentFolder
	if op.Delete {
		if err := s.cfg.disk.Remove(path); err != nil {
			return ignoreMissing(err)
		}
		if lasts {
			return s.cfg.disk.SyncDir(filepath.Dir(path))
		}
		return nil
	}
	if lasts {
		if err := s.cfg.disk.MkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
	}
	mode := op.Mode
	if mode == 0 {
		mode = newFileMode
	}
	return write(s.cfg.disk, path, op.Data, mode, lasts)
}

// inverse is the operation that leads back to the file as it is. The new file
// gets the mode of the one that it replaces.
func (s *Store) inverse(op *operation) (operation, error) {
	back := operation{Folder: op.Folder, File: op.File}
	data, mode, err := readFile(s.path(op.Folder, op.File), mostJournalBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		back.Delete = true
	case err != nil:
		return back, FileError{s.path(op.Folder, op.File), err}
	default:
		back.Data, back.Mode, op.Mode = data, mode, mode
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
	if err != nil {
		return err
	}
	s.journal = true
	for _, op := range ops {
		if op.File == "" || op.File != filepath.Base(op.File) {
			return fmt.Errorf("the journal speaks of a file %q outside its folder", op.File)
		}
	}
	return s.doAll(ops)
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
	data, _, err := readFile(path, mostJournalBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return FileError{path, err}
	}
	return nil
}
