package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// module is third-party code in the programs.
type module struct {
	Path, Version string
	Licence       string   // its short name
	Text          string   // the licence itself
	Notice        string   // the NOTICE file that the Apache licence defines
	Holders       []string // the copyright lines
}

// linked returns the modules that programs are built from, and Go's own library.
func linked(programs ...string) ([]module, error) {
	out, err := goOutput(append([]string{"list", "-deps", "-json=Module"}, programs...)...)
	if err != nil {
		return nil, err
	}
	dirs := map[[2]string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Module *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		if err := decoder.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if m := p.Module; m != nil && !m.Main {
			dirs[[2]string{m.Path, m.Version}] = m.Dir
		}
	}
	goroot, err := goOutput("env", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	root, version, _ := strings.Cut(strings.TrimSpace(string(goroot)), "\n")
	dirs[[2]string{"std", version}] = root
	var all []module
	for id, dir := range dirs {
		m, err := read(id[0], id[1], dir)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

func goOutput(args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// read reads a module's licence. It fails for a licence that it does not
// recognise, which ends the build: somebody has to check that licence.
func read(path, version, dir string) (module, error) {
	m := module{Path: path, Version: version}
	files, err := filepath.Glob(filepath.Join(dir, "LICENSE*"))
	if err != nil || len(files) != 1 {
		return m, fmt.Errorf("reading the licence of %s: %d files LICENSE* in %s (%v)", path, len(files), dir, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return m, err
	}
	notice, err := os.ReadFile(filepath.Join(dir, "NOTICE"))
	if err != nil && !os.IsNotExist(err) {
		return m, err
	}
	m.Text, m.Notice = strings.TrimSpace(string(text)), strings.TrimSpace(string(notice))
	if m.Licence = shortName(m.Text); m.Licence == "" {
		return m, fmt.Errorf("reading the licence of %s: that in %s is not a known one", path, files[0])
	}
	m.Holders = holders(m.Text + "\n" + m.Notice)
	return m, nil
}

// shortName returns the name that DEP-5 and SPDX share, by the words of the
// text; "" for any other licence.
func shortName(text string) string {
	words := strings.Join(strings.Fields(text), " ")
	switch {
	case strings.Contains(words, "Apache License Version 2.0, January 2004"):
		return "Apache-2.0"
	case strings.Contains(words, "Permission is hereby granted, free of charge, to any person obtaining a copy"):
		return "MIT"
	case !strings.Contains(words, "Redistribution and use in source and binary forms, with or without modification, are permitted"):
		return ""
	case strings.Contains(words, "Neither the name"):
		return "BSD-3-Clause"
	}
	return "BSD-2-Clause"
}

// holders returns the copyright lines. It skips the Apache licence's template,
// which names nobody.
func holders(text string) (out []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "Copyright ")
		if !ok || strings.ContainsAny(rest, "[{") || !strings.ContainsAny(rest, "0123456789") {
			continue
		}
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, "(c) "), "© ")
		if rest = strings.TrimSuffix(rest, " All rights reserved."); !slices.Contains(out, rest) {
			out = append(out, rest)
		}
	}
	return out
}
