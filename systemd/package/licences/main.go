// Command licences writes the packages' licence files and Debian's changelog
// into a stage: licences VERSION MAINTAINER STAGE, in the project's top
// directory. The texts are those of the modules that the programs are built
// from, in Go's module cache.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: licences VERSION MAINTAINER STAGE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func write(version, maintainer, stage string) error {
	modules, err := linked("./cmd/virtfirewalld", "./cmd/virtfirewallctl")
	if err != nil {
		return err
	}
	copyright, err := debian(modules, maintainer)
	if err != nil {
		return err
	}
	history, err := changelog(version, maintainer)
	if err != nil {
		return err
	}
	own, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	deb, rpm := filepath.Join(stage, "deb/usr/share/doc/virtfirewalld"), filepath.Join(stage, "licences")
	return errors.Join(
		put(filepath.Join(deb, "copyright"), copyright),
		put(filepath.Join(deb, "changelog.gz"), history),
		put(filepath.Join(rpm, "LICENSE"), own),
		put(filepath.Join(rpm, "NOTICES"), notices(modules)),
	)
}

func put(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// changelog returns one entry, for this build: the project's history is in git.
func changelog(version, maintainer string) ([]byte, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
	}
	var out bytes.Buffer
	packed, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(packed, "virtfirewalld (%s) unstable; urgency=medium\n\n  * Built from the project's own sources.\n\n -- %s  %s\n",
		version, maintainer, time.Unix(seconds, 0).UTC().Format(time.RFC1123Z))
	if err := errors.Join(err, packed.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
