package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The events after which libvirt's network driver may have started, or may have
// other networks than before: it creates its directory if that is missing, writes
// its PID into driver.pid once it holds the lock, renames a status document into
// place when a network has started or changed, and deletes it when the network
// stops. Reads are not watched: the service reads the files itself.
const (
	inRunDir = inParent | unix.IN_MODIFY | unix.IN_DELETE
	inParent = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
)

// Follow calls changed whenever libvirt's network driver may have started or have
// other networks, and once at the beginning, until the context ends.
func (d *Driver) Follow(ctx context.Context, changed func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("following what libvirt has: making an inotify instance: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	w := watch{fd: fd, target: d.dir, wd: -1}
	events := make([]byte, 16<<10)
	for {
		if err := w.update(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("following what libvirt has: %w", err)
		}
		changed()
		// The events' content does not matter: the callback reads the state itself.
		if _, err := f.Read(events); err != nil && ctx.Err() == nil {
			return fmt.Errorf("following what libvirt has: reading inotify: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// watch is the one directory that is watched: the target, or its nearest existing
// parent.
type watch struct {
	fd, wd int
	target string
}

// update moves the watch to the deepest existing directory. It checks again after a
// move, as the next directory may have been created just before.
func (w *watch) update() error {
	for {
		wd, err := w.deepest()
		if err != nil || wd == w.wd {
			return err
		}
		if w.wd >= 0 {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(w.wd)) // gone with its directory, perhaps
		}
		w.wd = wd
	}
}

// deepest watches the target or the nearest directory above it. For a directory that
// is watched already, the kernel returns the same descriptor.
func (w *watch) deepest() (wd int, err error) {
	mask := uint32(inRunDir)
	for dir := w.target; ; dir = filepath.Dir(dir) {
		wd, err = unix.InotifyAddWatch(w.fd, dir, mask)
		if err == nil {
			return wd, nil
		}
		missing := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
		if !missing || dir == filepath.Dir(dir) {
			return 0, fmt.Errorf("watching %s: %w", dir, err)
		}
		mask = inParent
	}
}
