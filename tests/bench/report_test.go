package main

import (
	"strings"
	"testing"
)

func TestUpdateReplacesItsOwnSections(t *testing.T) {
	m := machine{date: "2026-01-02"}
	first := report{sections: []*section{{title: "One"}, {title: "One more"}}}
	second := report{sections: []*section{{title: "One", how: "in another way"}, {title: "New"}}}
	text := second.update(first.update("", m), m)
	var titles []string
	for _, part := range strings.Split(text, sectionMark)[1:] {
		title, _, _ := strings.Cut(part, "\n")
		titles = append(titles, title)
	}
	if got := strings.Join(titles, "; "); got != "One; One more; New" {
		t.Errorf("the sections are %q", got)
	}
	if !strings.Contains(text, "in another way") || strings.Contains(text, "\n\n\n\n\n") {
		t.Errorf("the text is\n%s", text)
	}
	if again := second.update(text, m); again != text {
		t.Errorf("the same again changed the text:\n%s", again)
	}
}
