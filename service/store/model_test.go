package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is design decision 13 in a few maps.
type model struct {
	persistent, change, runtime map[string]string
	removed                     map[string]bool
}

func newModel() *model {
	return &model{map[string]string{}, map[string]string{}, map[string]string{}, map[string]bool{}}
}

func (m *model) put(name, version string, persistent bool) {
	delete(m.removed, name)
	switch {
	case persistent:
		m.persistent[name] = version
		delete(m.change, name)
		delete(m.runtime, name)
	case m.persistent[name] != "":
		m.change[name] = version
		delete(m.runtime, name)
	default:
		m.runtime[name] = version
		delete(m.change, name)
	}
}

func (m *model) remove(name string, persistent bool) {
	if persistent {
		delete(m.persistent, name)
	}
	delete(m.change, name)
	delete(m.runtime, name)
	delete(m.removed, name)
	if m.persistent[name] != "" {
		m.removed[name] = true
	}
}

func (m *model) reload() {
	clear(m.change)
	clear(m.removed)
	for name := range m.persistent {
		delete(m.runtime, name)
	}
}

func (m *model) reboot() {
	clear(m.change)
	clear(m.removed)
	clear(m.runtime)
}

func (m *model) current() []string {
	lines := []string{}
	for _, name := range []string{"a", "b", "c"} {
		version := m.persistent[name]
		if m.removed[name] {
			continue
		}
		for _, over := range []string{m.change[name], m.runtime[name]} {
			if over != "" {
				version = over
			}
		}
		if version == "" {
			continue
		}
		line := name + ": " + version
		if m.persistent[name] != "" {
			line += " (persistent)"
		}
		lines = append(lines, line)
	}
	return lines
}

func TestStoreIsTheModel(t *testing.T) {
	base := testConfig(t)
	rapid.Check(t, func(rt *rapid.T) {
		for _, dir := range []string{base.PersistentDir, base.RuntimeDir, base.StateDir} {
			must(t, os.RemoveAll(dir))
		}
		s, m := open(t, base), newModel()
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		version := rapid.StringMatching("[0-9]{1,4}")
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				n, v, persistent := name.Draw(rt, "name"), version.Draw(rt, "version"), rapid.Bool().Draw(rt, "persistent")
				before := tree(t, base.PersistentDir, base.RuntimeDir, base.StateDir)
				undo, err := s.Put(n, doc(n, v), persistent)
				if err != nil {
					rt.Fatal(err)
				}
				if undone(rt, t, base, before, undo) {
					return
				}
				m.put(n, v, persistent)
			},
			"remove": func(rt *rapid.T) {
				n, persistent := name.Draw(rt, "name"), rapid.Bool().Draw(rt, "persistent")
				before := tree(t, base.PersistentDir, base.RuntimeDir, base.StateDir)
				undo, err := s.Remove(n, persistent)
				known := m.persistent[n] != "" || m.runtime[n] != "" || m.change[n] != ""
				if (err == nil) != known {
					rt.Fatal("Remove of", n, "gives", err)
				}
				if err != nil || undone(rt, t, base, before, undo) {
					return
				}
				m.remove(n, persistent)
			},
			"reload": func(rt *rapid.T) {
				before := tree(t, base.PersistentDir, base.RuntimeDir, base.StateDir)
				undo, err := forget(s)
				if err != nil {
					rt.Fatal(err)
				}
				if undone(rt, t, base, before, undo) {
					return
				}
				m.reload()
			},
			"restart": func(*rapid.T) { s = open(t, base) },
			"reboot": func(*rapid.T) {
				must(t, os.RemoveAll(base.RuntimeDir))
				s = open(t, base)
				m.reboot()
			},
			"by hand": func(rt *rapid.T) {
				n := name.Draw(rt, "name")
				files, _ := filepath.Glob(filepath.Join(base.PersistentDir, n+"*.xml"))
				if len(files) > 0 {
					must(t, os.Remove(files[0]))
					delete(m.persistent, n)
				} else {
					v := version.Draw(rt, "version")
					writeFile(t, filepath.Join(base.PersistentDir, n+"-by-hand.xml"), doc(n, v))
					m.persistent[n] = v
				}
				s = open(t, base)
			},
			"broken files": func(rt *rapid.T) {
				files := tree(t, base.PersistentDir, filepath.Join(base.RuntimeDir, "networks"))
				was := map[string][]byte{}
				for path := range files {
					data, err := os.ReadFile(path)
					must(t, err)
					was[path] = data
					must(t, os.Truncate(path, 0))
				}
				s = open(t, base)
				state, broken, err := s.Load()
				if err != nil || len(broken) != len(files) {
					rt.Fatal(err, broken)
				}
				if diff := cmp.Diff(m.current(), view(state.Current())); diff != "" {
					rt.Fatal("in force by the last good definitions (-model +store):\n", diff)
				}
				for path, data := range was {
					must(t, os.WriteFile(path, data, 0o644))
				}
				s = open(t, base)
			},
			"": func(rt *rapid.T) {
				state, broken, err := s.Load()
				if err != nil || len(broken) > 0 {
					rt.Fatal(err, broken)
				}
				if diff := cmp.Diff(m.current(), view(state.Current())); diff != "" {
					rt.Fatal("in force (-model +store):\n", diff)
				}
				for _, n := range []string{"a", "b", "c"} {
					if s.Persistent(n) != (m.persistent[n] != "") {
						rt.Fatal("Persistent is wrong for", n)
					}
				}
				after := &model{m.persistent, nil, map[string]string{}, nil}
				for n, v := range m.runtime {
					if m.persistent[n] == "" {
						after.runtime[n] = v
					}
				}
				if diff := cmp.Diff(after.current(), view(state.AfterReload())); diff != "" {
					rt.Fatal("after a reload (-model +store):\n", diff)
				}
			},
		})
	})
}

// undone sometimes undoes a change, and then says so.
func undone(rt *rapid.T, t *testing.T, cfg Config, before map[string]string, undo func() error) bool {
	if !rapid.Bool().Draw(rt, "undo") {
		return false
	}
	if err := undo(); err != nil {
		rt.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, cfg.PersistentDir, cfg.RuntimeDir, cfg.StateDir)); diff != "" {
		rt.Fatal("undo leaves (-before +after):\n", diff)
	}
	return true
}
