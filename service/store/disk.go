package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	temporaryPrefix = ".virtfirewalld-"
	newFileMode     = 0o644
	folderMode      = 0o755
)

// disk is every way in which the store changes the file system, one system call
// each, so that tests can stop it between any two.
type disk interface {
	// Create makes a new file, and fails where there is one.
	Create(path string, mode fs.FileMode) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
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

func (realDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write puts a file in place whole. With sync its content is on the disk when
// it has its name; a folder in memory needs none.
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

// othersWrite are the bits of a mode that let others than the owner write.
const othersWrite fs.FileMode = 0o022

// readFile reads a file that decides over the firewall: nobody but root may
// have written it. The checks are on the open file, not on its name.
func readFile(path string, most int64) ([]byte, fs.FileMode, error) {
	data, mode, err := readOwn(path, most)
	if err == nil && mode&othersWrite != 0 {
		return nil, 0, othersMay(mode)
	}
	return data, mode, err
}

// readOwn is readFile without a look at who may write: what it reads is put
// back as it was, and nothing more.
func readOwn(path string, most int64) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, 0, errors.New("it is a symbolic link; put the file itself in its place")
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if err := checkFile(info, most); err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = tooLarge(most)
	}
	return data, info.Mode().Perm(), err
}

func checkFile(info fs.FileInfo, most int64) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file; remove it")
	}
	if err := checkOwner(info); err != nil {
		return err
	}
	if info.Size() > most {
		return tooLarge(most)
	}
	return nil
}

func checkOwner(info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
		return fmt.Errorf("it belongs to user %d; chown it to root", st.Uid)
	}
	return nil
}

func othersMay(mode fs.FileMode) error {
	return fmt.Errorf("others than root may write it (mode %04o); chmod it to 0644", mode.Perm())
}

func tooLarge(most int64) error {
	return fmt.Errorf("it is larger than %d bytes", most)
}

// checkFolder refuses a folder in which others than root could put files.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !info.IsDir() {
		err = errors.New("it is not a folder")
	}
	if err == nil {
		err = checkOwner(info)
	}
	if err == nil && info.Mode()&othersWrite != 0 {
		err = errors.New(strings.Replace(othersMay(info.Mode()).Error(), "0644", "0755", 1))
	}
	if err != nil {
		return fmt.Errorf("using folder %s: %w", dir, err)
	}
	return nil
}
