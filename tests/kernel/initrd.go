package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules are what the guest needs to see the machine's files; the rest loads
// when the kernel asks for it.
var modules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// initrd returns the first root of the guest: init and the modules, in the order in
// which they are loaded.
func initrd(cache, init string) ([]byte, error) {
	var a archive
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"modules", "dev", "proc", "sys"} {
		a.add(dir, 0o40755, nil)
	}
	a.add("init", 0o100755, program)
	paths, err := moduleFiles(cache)
	if err != nil {
		return nil, err
	}
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		a.add(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(path)), 0o100644, data)
	}
	a.add("TRAILER!!!", 0, nil)
	return a.data.Bytes(), nil
}

// moduleFiles returns the modules and what they depend on, dependencies first.
func moduleFiles(cache string) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(cache, "tree/usr/lib/modules/*"))
	if err != nil || len(dirs) != 1 {
		return nil, fmt.Errorf("%s holds modules of %d kernels, not one", cache, len(dirs))
	}
	text, err := os.ReadFile(filepath.Join(dirs[0], "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{} // by name, the file first
	for line := range strings.Lines(string(text)) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[strings.TrimSuffix(filepath.Base(file), ".ko")] = append([]string{file}, strings.Fields(rest)...)
	}
	var files []string
	for _, name := range modules {
		if needs[name] == nil {
			return nil, fmt.Errorf("the kernel in %s has no module %s", cache, name)
		}
		list := slices.Clone(needs[name])
		slices.Reverse(list) // modules.dep names the deepest last
		for _, file := range list {
			if path := filepath.Join(dirs[0], file); !slices.Contains(files, path) {
				files = append(files, path)
			}
		}
	}
	return files, nil
}

// archive is a cpio archive of the form that the kernel reads (newc).
type archive struct {
	data  bytes.Buffer
	inode int
}

func (a *archive) add(name string, mode int, content []byte) {
	a.inode++
	fields := []int{a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0}
	a.data.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&a.data, "%08x", f)
	}
	a.data.WriteString(name + "\x00")
	a.align()
	a.data.Write(content)
	a.align()
}

func (a *archive) align() {
	for a.data.Len()%4 != 0 {
		a.data.WriteByte(0)
	}
}
