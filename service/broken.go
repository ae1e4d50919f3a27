package service

import (
	"cmp"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/store"
)

const mendFile = "mend the file, then `virtfirewallctl reload`"

// noteBroken logs files that cannot be used, and reports those that no network
// is in force for.
func (ld *loader) noteBroken(broken []store.FileError) {
	for _, b := range broken {
		switch {
		case b.Network != "":
			ld.logStanding(b)
		case strings.HasSuffix(b.Path, ".xml"):
			ld.log.Error("a stored network is left out until its file is right", "file", b.Path, "error", b.Err)
		default:
			ld.log.Error("what the service stored cannot be used", "file", b.Path, "error", b.Err)
		}
	}
	ld.networks.noteHost(fromFile, neverUsable(broken)...)
}

// neverUsable are the findings of files that no network is in force for; one that
// is says so itself.
func neverUsable(broken []store.FileError) (fs []finding.Finding) {
	for _, b := range broken {
		switch {
		case b.Network != "":
		case strings.HasSuffix(b.Path, ".xml"):
			fs = append(fs, finding.Finding{ID: finding.FileNeverUsable, Summary: b.Error(), Remedy: mendFile})
		default:
			fs = append(fs, finding.Finding{ID: finding.StateFileBroken, Summary: b.Error(), Remedy: "see to it, then `virtfirewallctl reload`"})
		}
	}
	return fs
}

func (ld *loader) logStanding(b store.FileError) {
	ld.log.Error("a network is in force by its last good definition until its file is right: mend the file, then reload",
		"file", b.Path, "network", b.Network, "error", b.Err)
}

// adoptAll makes the stored networks known. Those that were in force come
// first, so that what is new takes nothing from them; where one cannot be what
// its file says by now, it is what it was, and is named in refused.
func (ld *loader) adoptAll(state store.State, records store.ZoneRecords) (refused map[string]bool) {
	refused = map[string]bool{}
	kept := ld.files.Links()
	entries := state.Current()
	// A link that a network had is not taken by one that only has its name.
	slices.SortStableFunc(entries, func(a, b store.Entry) int {
		return cmp.Or(min(1, linkOf(b, kept))-min(1, linkOf(a, kept)), b.Standing()-a.Standing())
	})
	for _, e := range entries {
		m, err := ld.restored(e, linkOf(e, kept), records.Of(e.Network.Name))
		if former, was := e.Former(); err != nil && was {
			refused[e.Network.Name] = true
			former.Fault = &store.FileError{Path: e.Path, Network: e.Network.Name, Err: err}
			ld.logStanding(*former.Fault)
			m, err = ld.restored(former, linkOf(former, kept), records.Of(e.Network.Name))
			e = former
		}
		if err != nil {
			refused[e.Network.Name] = true
			ld.log.Error("a stored network is left out until its file is right", "file", e.Path, "network", e.Network.Name, "error", err)
			continue
		}
		ld.adopt(m.noting(fromFile, standing(e)...))
	}
	return refused
}

// linkOf is the link that a network had for the bridge of this definition; 0 for
// none that is known.
func linkOf(e store.Entry, kept map[string]store.Link) int {
	if l := kept[e.Network.Name]; l.Bridge == e.Network.Bridge {
		return l.Index
	}
	return 0
}

// noteRead notes what a reload that took all files found of them. The caller
// holds the lock.
func (ld *loader) noteRead(state store.State) {
	for _, e := range state.AfterReload() {
		ld.networks.note(e.Network.Name, fromFile, standing(e)...)
	}
	ld.networks.noteHost(fromFile)
}

// standing is the finding of a network that is in force by its last good
// definition.
func standing(e store.Entry) []finding.Finding {
	if e.Fault == nil {
		return nil
	}
	return []finding.Finding{{ID: finding.FileUnusable, Summary: e.Fault.Error() + "; its last good definition is in force", Remedy: mendFile}}
}
