// Package trusted reads files that control the firewall, and returns why one cannot
// be trusted. No file makes it block.
package trusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OthersWrite are the bits of a mode that let others than the owner write.
const OthersWrite fs.FileMode = 0o022

// Read reads a file that controls the firewall: only root may have written it. The
// checks are on the open file, not on its name.
func Read(path string, limit int64) ([]byte, fs.FileMode, error) {
	data, mode, err := ReadOwn(path, limit)
	if err == nil && mode&OthersWrite != 0 {
		return nil, 0, othersMay(mode)
	}
	return data, mode, err
}

// ReadOwn is Read without a check of who may write, for files that are only
// restored as they were.
func ReadOwn(path string, limit int64) ([]byte, fs.FileMode, error) {
	data, info, err := read(path, unix.O_NOFOLLOW, limit, checkOwner)
	if errors.Is(err, unix.ELOOP) {
		err = errors.New("it is a symbolic link; put the file itself in its place")
	}
	if err != nil {
		return nil, 0, err
	}
	return data, info.Mode().Perm(), nil
}

// ReadAnybodys reads a regular file of any owner, also through links: another
// program's, whose trust is that program's decision.
func ReadAnybodys(path string, limit int64) ([]byte, error) {
	data, _, err := read(path, 0, limit, func(fs.FileInfo) error { return nil })
	return data, err
}

// read opens without blocking, as a pipe without a writer would.
func read(path string, flags int, limit int64, check func(fs.FileInfo) error) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("it is not a regular file; remove it")
	}
	if err := check(info); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return data, info, err
}

// checkOwner refuses files of other owners than root and the user that this process
// runs as, who can do all that the process can.
func checkOwner(info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d; chown it to root", st.Uid)
	}
	return nil
}

func othersMay(mode fs.FileMode) error {
	return fmt.Errorf("others than root may write it (mode %04o); chmod it to 0644", mode.Perm())
}

// CheckFolder refuses a folder in which others than root could put files.
func CheckFolder(dir string) error {
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
	if err == nil && info.Mode()&OthersWrite != 0 {
		err = errors.New(strings.Replace(othersMay(info.Mode()).Error(), "0644", "0755", 1))
	}
	if err != nil {
		return fmt.Errorf("using folder %s: %w", dir, err)
	}
	return nil
}
