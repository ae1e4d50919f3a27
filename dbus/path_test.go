package dbus

import (
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

func TestParsePath(t *testing.T) {
	for path, want := range map[string]object{
		"/":                                {kind: parentObject},
		"/org":                             {kind: parentObject},
		"/org/virtfirewall":                {kind: parentObject},
		ManagerPath:                        {kind: managerObject},
		networksPath:                       {kind: parentObject},
		networksPath + "/default":          {kind: networkObject, name: "default"},
		networksPath + "/a_20b_c3_a9_5f":   {kind: networkObject, name: "a b\u00e9_"},
		networksPath + "/_2e_2e_2fescaped": {kind: networkObject, name: "../escaped"},
	} {
		if got, ok := parsePath(godbus.ObjectPath(path)); !ok || got != want {
			t.Errorf("%s is %+v (%v), want %+v", path, got, ok, want)
		}
	}
	for _, path := range []string{"", "/or", "/org/virt", "/org/", ManagerPath + "x", networksPath + "/", networksPath + "/a/b",
		networksPath + "/_", networksPath + "/_2", networksPath + "/_2E", networksPath + "/_61", networksPath + "/a.b"} {
		if got, ok := parsePath(godbus.ObjectPath(path)); ok {
			t.Errorf("%q is %+v, want nothing", path, got)
		}
	}
}

// FuzzParsePath checks that every path of a network is that network's only one.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/", ManagerPath, networksPath + "/default", networksPath + "/a_20b", networksPath + "/_zz", "/org//x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		o, ok := parsePath(godbus.ObjectPath(path))
		if !ok || o.kind != networkObject {
			return
		}
		if back := NetworkPath(o.name); string(back) != path {
			t.Fatalf("%q is the network %q, whose path is %q", path, o.name, back)
		}
		if !NetworkPath(o.name).IsValid() || strings.Count(path, "/") != 5 {
			t.Fatalf("%q is not a path of a network", path)
		}
	})
}
