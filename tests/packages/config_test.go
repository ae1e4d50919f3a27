package packages

import (
	"github.com/virtfirewalld/virtfirewalld/tests/rig"

	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
)

// TestConfigurationAsInstalled has exactly the defaults, every setting, and the
// manual documents them too.
func TestConfigurationAsInstalled(t *testing.T) {
	text, err := os.ReadFile(rig.Source("systemd/virtfirewalld.conf"))
	rig.Must(t, err)
	defaults, err := service.ParseConfig(nil, "")
	rig.Must(t, err)
	if got, err := service.ParseConfig(text, ""); err != nil || !cmp.Equal(defaults, got) {
		t.Errorf("as it is installed it says something: %+v, %v", got, err)
	}
	shown := regexp.MustCompile(`(?m)^#(\w+ = .*)$`).ReplaceAllString(string(text), "$1")
	got, err := service.ParseConfig([]byte(shown), "")
	if err != nil {
		t.Fatalf("what it shows cannot be read: %v", err)
	}
	if got.Own.Value != choice.Auto {
		t.Errorf("it shows %q for firewall_backend", got.Own.Value)
	}
	if diff := cmp.Diff(defaults, got, cmpopts.IgnoreTypes(choice.Setting{})); diff != "" {
		t.Errorf("it shows other values than the defaults (-default +shown):\n%s", diff)
	}
	// The error for a key that there is not names those that there are.
	_, unknown := service.ParseConfig([]byte("nosuch = 1\n"), "")
	if unknown == nil {
		t.Fatal("an unknown key is taken")
	}
	manual, err := os.ReadFile(rig.Source("docs/man/virtfirewalld.conf.5.md"))
	rig.Must(t, err)
	_, list, _ := strings.Cut(unknown.Error(), "there are ")
	keys := regexp.MustCompile(`\w+_\w+`).FindAllString(list, -1)
	if len(keys) < 2 {
		t.Fatalf("keys: %q", keys)
	}
	for _, key := range keys {
		if !strings.Contains(string(text), "\n#"+key+" = ") || !strings.Contains(string(manual), "\n**"+key+"**\n") {
			t.Errorf("the setting %s is missing in virtfirewalld.conf or its manual", key)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+) = `).FindAllStringSubmatch(shown, -1) {
		if !slices.Contains(keys, m[1]) {
			t.Errorf("it shows %s, which is no setting", m[1])
		}
	}
}
