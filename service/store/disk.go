package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	temporaryPrefix = ".virtfirewalld-"
	newFileMode     = 0o644
	folderMode      = 0o755
)

// disk has all system calls by which the store changes the file system, so that tests
// can stop it between any two.
type disk interface {
	// Create creates a new file, and fails if it exists.
	Create(path string, mode fs.FileMode) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
	// SyncAll syncs the whole file system that a folder is on to the disk.
	SyncAll(dir string) error
	MkdirAll(path string) error
}

// file is an open new file.
type file interface {
	io.WriteCloser
	Sync() error
}

type realDisk struct{}

func (realDisk) Create(path string, mode fs.FileMode) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, err
	}
	return f, f.Chmod(mode) // whatever the umask is
}

func (realDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (realDisk) Remove(path string) error     { return os.Remove(path) }
func (realDisk) MkdirAll(path string) error   { return os.MkdirAll(path, folderMode) }

func (realDisk) SyncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

func (realDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write replaces a file atomically. With sync its content is on the disk before it
// has its name; a folder in memory needs none.
func write(d disk, path string, data []byte, mode fs.FileMode, sync bool) error {
	dir, base := filepath.Split(path)
	// The store's lock makes the name ours alone: a leftover is of a killed run.
	temporary := filepath.Join(dir, temporaryPrefix+shortened(base))
	f, err := d.Create(temporary, mode)
	if errors.Is(err, fs.ErrExist) {
		if err = d.Remove(temporary); err == nil {
			f, err = d.Create(temporary, mode)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(d.Remove(temporary)))
	}
	return nil
}

// shortened keeps a temporary file's name within NAME_MAX.
func shortened(base string) string { return base[:min(len(base), 200)] }

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
