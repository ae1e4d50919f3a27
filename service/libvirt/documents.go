package libvirt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxDocuments bounds how many networks libvirt may have.
const maxDocuments = 10000

const documentSuffix = ".xml"

// document is one status document as it was last read.
type document struct {
	stamp   stamp
	network Network
	err     error
}

// stamp identifies a version of a file: libvirt writes a new file each time and
// renames it into place.
type stamp struct {
	inode    uint64
	size     int64
	modified time.Time
}

// documents returns the status documents of a directory, by file name. before is
// what was read earlier: a file that has not changed since is not read again.
func documents(dir string, before map[string]document) (map[string]document, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which networks libvirt has: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("reading which networks libvirt has: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, documentSuffix) })
	if len(names) > maxDocuments {
		return nil, fmt.Errorf("reading which networks libvirt has: %s holds %d documents, more than %d", dir, len(names), maxDocuments)
	}
	out := make(map[string]document, len(names))
	for _, name := range names {
		doc, err := readDocument(filepath.Join(dir, name), before[name])
		if errors.Is(err, fs.ErrNotExist) {
			continue // stopped just now
		}
		doc.err = err
		out[name] = doc
	}
	return out, nil
}

// readDocument follows no link and never blocks: anything but a regular file is not
// libvirt's.
func readDocument(path string, before document) (document, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return document{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return document{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxStatus {
		return document{}, fmt.Errorf("%s is not a status document of libvirt's: it is no plain file, or longer than %d bytes", path, maxStatus)
	}
	doc := document{stamp: stamp{size: info.Size(), modified: info.ModTime()}}
	if sys, ok := info.Sys().(*unixStat); ok {
		doc.stamp.inode = sys.Ino
	}
	if before.err == nil && before.stamp == doc.stamp {
		return before, nil
	}
	text, err := io.ReadAll(io.LimitReader(f, maxStatus+1))
	if err == nil && len(text) > maxStatus {
		err = fmt.Errorf("it is longer than %d bytes", maxStatus)
	}
	if err == nil {
		doc.network, err = parseStatus(text)
	}
	if err != nil {
		return document{}, fmt.Errorf("reading libvirt's status document %s: %w", path, err)
	}
	return doc, nil
}

// problems returns the errors of documents, in the order of their names.
func problems(docs map[string]document) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		errs = append(errs, docs[name].err)
	}
	return errors.Join(errs...)
}
