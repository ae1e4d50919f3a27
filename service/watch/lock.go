package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// lockCalls are the events at the end of a call of iptables' legacy variant: it
	// opens the file for reading and locks it (1.8), older ones for writing.
	// Listing rules with iptables-legacy-save takes no lock.
	lockCalls = unix.IN_CLOSE_NOWRITE | unix.IN_CLOSE_WRITE
	// lockReplaced are the events of a file that is replaced. An unlinked file that
	// is still open is reported as a change of its link count.
	lockReplaced = unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	// lockCreated are a folder's events of a new file.
	lockCreated = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR

	lockBuffer = 4096
)

// Lock watches the lock file of iptables' legacy variant, for whose changes the
// kernel sends no notifications: each call takes the lock, so a program that
// released it may have changed something. It reports the service's own calls as
// well, and those in other network namespaces that share the file. It is safe for
// concurrent use.
type Lock struct {
	path    string
	log     *slog.Logger
	fd      int
	file    *os.File // of fd, for reading that Close ends
	touched chan struct{}

	folder, lock int // watches; negative for none

	worker sync.WaitGroup
}

// WatchLock starts a watch. The file need not exist; its folder must. Close ends
// it.
func WatchLock(path string, log *slog.Logger) (*Lock, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("preparing to watch %s: %w", path, err)
	}
	l := &Lock{
		path: path, log: log, fd: fd, file: os.NewFile(uintptr(fd), "inotify"),
		touched: make(chan struct{}, 1), folder: -1, lock: -1,
	}
	if err := l.rewatch(); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	l.worker.Go(l.run)
	return l, nil
}

// Touched returns a channel that receives a value after calls. Several before it is
// read are reported once.
func (l *Lock) Touched() <-chan struct{} { return l.touched }

// Close ends the watch and waits for its goroutine.
func (l *Lock) Close() error {
	err := l.file.Close()
	l.worker.Wait()
	return err
}

// rewatch watches the file that has the name now, and the folder only while none
// has it: a folder has many other events.
func (l *Lock) rewatch() error {
	if l.folder < 0 {
		if err := l.add(&l.folder, filepath.Dir(l.path), lockCreated); err != nil {
			return err
		}
	}
	switch err := l.add(&l.lock, l.path, lockCalls|lockReplaced); {
	case errors.Is(err, fs.ErrNotExist):
		l.drop(&l.lock)
		return nil
	case err != nil:
		return err
	}
	l.drop(&l.folder)
	return nil
}

// add watches the file at a path instead of what was watched before.
func (l *Lock) add(watch *int, path string, mask uint32) error {
	now, err := unix.InotifyAddWatch(l.fd, path, mask)
	if err != nil {
		return fmt.Errorf("watching %s: %w", path, err)
	}
	if now != *watch {
		l.drop(watch)
		*watch = now
	}
	return nil
}

func (l *Lock) drop(watch *int) {
	if *watch >= 0 {
		_, _ = unix.InotifyRmWatch(l.fd, uint32(*watch)) // gone with its file, perhaps
		*watch = -1
	}
}

func (l *Lock) run() {
	events := make([]byte, lockBuffer)
	for {
		n, err := l.file.Read(events)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil { // not seen: reading only fails for a buffer that is too small
			l.log.Error("the watch of iptables' lock ends: changes by iptables-legacy are seen at the next comparison only", "error", err)
			return
		}
		l.handle(events[:n])
	}
}

// handle handles events, which are complete.
func (l *Lock) handle(events []byte) {
	calls, replaced := false, false
	for len(events) >= unix.SizeofInotifyEvent {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&events[0]))
		end := min(unix.SizeofInotifyEvent+int(e.Len), len(events))
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00")
		events = events[end:]
		switch {
		case e.Mask&unix.IN_Q_OVERFLOW != 0:
			calls, replaced = true, true
		case int(e.Wd) == l.lock:
			calls = calls || e.Mask&lockCalls != 0
			replaced = replaced || e.Mask&(lockReplaced|unix.IN_IGNORED) != 0
		case int(e.Wd) == l.folder:
			replaced = replaced || name == filepath.Base(l.path)
		}
	}
	if replaced {
		calls = true // the new file was not watched meanwhile
		if err := l.rewatch(); err != nil {
			l.log.Error("iptables' lock cannot be watched any more: changes by iptables-legacy are seen at the next comparison only", "error", err)
		}
	}
	if calls {
		l.touch()
	}
}

func (l *Lock) touch() {
	select {
	case l.touched <- struct{}{}:
	default:
	}
}
