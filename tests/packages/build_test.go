package packages

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// packages are two versions' packages, built once for all tests of this run.
var packages = sync.OnceValues(func() ([2]string, error) {
	var dirs [2]string
	for i, version := range []string{"7.8.9", "7.9.0-rc1"} {
		dirs[i] = filepath.Join(scratch, version)
		if err := pack(version, dirs[i]); err != nil {
			return dirs, err
		}
	}
	return dirs, nil
})

// pack builds the packages of a version from a copy of the tree.
func pack(version, into string) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	if err := copyTree(into); err != nil {
		return err
	}
	cmd := exec.Command("make", "packages", "VERSION="+version)
	cmd.Dir = into
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make packages: %w\n%s", err, out)
	}
	return nil
}

// built returns the packages of the older version, by their ending.
func built(t *testing.T) (deb, rpm, tree string) {
	t.Helper()
	dirs, err := packages()
	rig.Must(t, err)
	return onlyFile(t, dirs[0], "virtfirewalld_7.8.9_*.deb"), onlyFile(t, dirs[0], "virtfirewalld-7.8.9-1.*.rpm"), dirs[0]
}

// newer returns the newer version's package for Debian.
func newer(t *testing.T) string {
	t.Helper()
	dirs, err := packages()
	rig.Must(t, err)
	return onlyFile(t, dirs[1], "virtfirewalld_7.9.0~rc1_*.deb")
}

func onlyFile(t *testing.T, dir, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "bin/packages", pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s in bin/packages: %v, %v", pattern, files, err)
	}
	return files[0]
}

// output runs a program of the machine that must succeed.
func output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v (tests/setup.sh installs what is missing)\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// unpackRPM takes a package and a directory.
const unpackRPM = `rpm2cpio "$1" | (cd "$2" && busybox cpio -id 2>/dev/null)`

// content returns a file's mode and the sum of what it holds. What is packed is
// unpacked, and known by the name that it had.
func content(t *testing.T, root, name string) (as, is string) {
	t.Helper()
	info, err := os.Stat(filepath.Join(root, name))
	rig.Must(t, err)
	data, err := os.ReadFile(filepath.Join(root, name))
	rig.Must(t, err)
	if unpacked, ok := strings.CutSuffix(name, ".gz"); ok {
		name = unpacked
		reader, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if data, err = io.ReadAll(reader); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return name, fmt.Sprintf("%o %x", info.Mode().Perm(), sha256.Sum256(data))
}

func contents(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	files, _ := installed(t, root)
	for name := range files {
		as, is := content(t, root, name)
		all[as] = is
	}
	return all
}

// TestPackagesHoldWhatIsInstalled, and beside that only what is a package's
// own.
func TestPackagesHoldWhatIsInstalled(t *testing.T) {
	t.Parallel()
	deb, rpm, tree := built(t)
	for name, c := range map[string]struct {
		unpack   []string
		settings []string
		own      []string
	}{
		"deb": {
			[]string{"dpkg-deb", "-x", deb},
			[]string{"ZSHCOMPDIR=/usr/share/zsh/vendor-completions"},
			[]string{"/usr/share/doc/virtfirewalld/changelog", "/usr/share/doc/virtfirewalld/copyright"},
		},
		"rpm": {
			[]string{"sh", "-c", unpackRPM, "unpack", rpm},
			nil,
			[]string{"/usr/share/licenses/virtfirewalld/LICENSE", "/usr/share/licenses/virtfirewalld/NOTICES"},
		},
	} {
		root, packed := t.TempDir(), t.TempDir()
		runMake(t, tree, append([]string{"install", "DESTDIR=" + root, "PREFIX=/usr", "VERSION=7.8.9"}, c.settings...)...)
		output(t, append(c.unpack, packed)...)
		want, got := contents(t, root), contents(t, packed)
		for _, own := range c.own {
			if _, ok := got[own]; !ok {
				t.Errorf("%s: %s is missing", name, own)
			}
			delete(got, own)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s differs from what is installed (-installed +packed):\n%s", name, diff)
		}
		if info, err := os.Stat(filepath.Join(packed, "etc/virtfirewalld/networks")); err != nil || !info.IsDir() {
			t.Errorf("%s: the networks' directory: %v", name, err)
		}
		if page, err := filepath.Glob(filepath.Join(packed, "usr/share/man/man?/*")); err != nil || len(page) < 10 ||
			slices.ContainsFunc(page, func(p string) bool { return !strings.HasSuffix(p, ".gz") }) {
			t.Errorf("%s: manual pages: %v, %v", name, page, err)
		}
	}
}

// TestPackagesAreReproducible: built elsewhere from the same sources they are
// the same to the bit.
func TestPackagesAreReproducible(t *testing.T) {
	t.Parallel()
	_, _, tree := built(t)
	again := t.TempDir()
	rig.Must(t, pack("7.8.9", again))
	if diff := cmp.Diff(contents(t, filepath.Join(tree, "bin/packages")), contents(t, filepath.Join(again, "bin/packages"))); diff != "" {
		t.Error(diff)
	}
}

func TestDebSaysWhatItIs(t *testing.T) {
	t.Parallel()
	deb, _, _ := built(t)
	control := output(t, "dpkg-deb", "-f", deb)
	for _, want := range []string{"Package: virtfirewalld\n", "Version: 7.8.9\n", "Section: net\n", "Recommends: nftables, polkitd\n",
		"Depends: default-dbus-system-bus | dbus-system-bus\n", "Description: firewall of virtual networks"} {
		if !strings.Contains(control, want) {
			t.Errorf("no %q in\n%s", want, control)
		}
	}
	dir := t.TempDir()
	output(t, "dpkg-deb", "-e", deb, dir)
	files := filesBelow(t, dir)
	if files["/conffiles"] != rig.ConfigFile+"\n" {
		t.Errorf("conffiles: %q", files["/conffiles"])
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		output(t, "dash", "-n", filepath.Join(dir, script))
	}
	if _, err := exec.Command("dpkg", "--compare-versions", "7.9.0~rc1", "lt", "7.9.0").CombinedOutput(); err != nil {
		t.Error("a candidate is not older than its release")
	}
	newer(t) // has the name that dpkg orders so
}

// TestVersionsOfPackages: what git describes becomes a version that is newer
// than the tag and holds no hyphen, which rpm refuses.
func TestVersionsOfPackages(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"1.2.3": "1.2.3", "1.2.3-rc1": "1.2.3~rc1", "1.2.3-4-gabc123f": "1.2.3+4.gabc123f", "1.2.3-4-gabc123f-dirty": "1.2.3+4.gabc123f+dirty",
		"1.2.3-rc1-4-gabc123f": "1.2.3~rc1+4.gabc123f", "0.1.0-dev.121+1ca1e40": "0.1.0~dev.121+1ca1e40", "1.2.3-dirty": "1.2.3+dirty",
	} {
		cmd := exec.Command("make", "-s", "--eval", `print: ; @echo '$(PACKAGE_VERSION)'`, "print", "VERSION="+version)
		cmd.Dir = rig.Source()
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s becomes %s, %v; want %s", version, out, err, want)
		}
	}
}

func TestRPMSaysWhatItIs(t *testing.T) {
	t.Parallel()
	_, rpm, _ := built(t)
	ask := func(args ...string) string { return output(t, append([]string{"rpm", "-qp"}, append(args, rpm)...)...) }
	for query, want := range map[string]string{
		"--configfiles":  rig.ConfigFile + "\n",
		"--licensefiles": "/usr/share/licenses/virtfirewalld/LICENSE\n/usr/share/licenses/virtfirewalld/NOTICES\n",
		"--recommends":   "nftables\npolkit\n",
		"--queryformat=%{NAME} %{VERSION}-%{RELEASE} %{LICENSE} %{BUILDHOST}\n": "virtfirewalld 7.8.9-1 Apache-2.0 localhost\n",
	} {
		if got := ask(query); got != want {
			t.Errorf("rpm %s: %q, want %q", query, got, want)
		}
	}
	flags := ask("--queryformat=[%{FILENAMES} %{FILEFLAGS:fflags} %{FILEUSERNAME}\n]")
	if !strings.Contains(flags, rig.ConfigFile+" cn root\n") {
		t.Errorf("the configuration is not kept as the administrator has it:\n%s", flags)
	}
	for _, want := range []string{"dbus", "systemd"} {
		if !strings.Contains("\n"+ask("--requires"), "\n"+want+"\n") {
			t.Errorf("it does not require %s:\n%s", want, ask("--requires"))
		}
	}
	if owned := ask("--list"); strings.Contains("\n"+owned, "\n/usr/bin\n") || strings.Contains("\n"+owned, "\n/usr/share/man\n") {
		t.Errorf("it owns the system's directories:\n%s", owned)
	}
	checkRPMScripts(t, ask("--scripts"))
}

// checkRPMScripts has each script pass a shell, and looks for what it is there
// for.
func checkRPMScripts(t *testing.T, scripts string) {
	t.Helper()
	parts := regexp.MustCompile(`(?m)^(\w+) scriptlet \(using /bin/sh\):$`).FindAllStringSubmatchIndex(scripts, -1)
	wants := map[string][]string{
		"postinstall":   {"install-system-units", "preset", "daemon-reload"},
		"preuninstall":  {`[ "$1" -eq 0 ] || exit 0`, "remove-system-units", "virtfirewalld --flush"},
		"postuninstall": {"mark-restart-system-units", "try-restart"},
	}
	for i, at := range parts {
		end := len(scripts)
		if i+1 < len(parts) {
			end = parts[i+1][0]
		}
		name, text := scripts[at[2]:at[3]], scripts[at[1]:end]
		for _, want := range wants[name] {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q:\n%s", name, want, text)
			}
		}
		file := filepath.Join(t.TempDir(), name)
		rig.Must(t, os.WriteFile(file, []byte(text), 0o644))
		output(t, "dash", "-n", file)
		delete(wants, name)
	}
	if len(wants) > 0 {
		t.Errorf("scripts are missing: %v in\n%s", slices.Collect(maps.Keys(wants)), scripts)
	}
}

// TestLicencesOfAllThatIsLinked: each module that is in the programs is in both
// packages' notices.
func TestLicencesOfAllThatIsLinked(t *testing.T) {
	t.Parallel()
	deb, rpm, tree := built(t)
	debRoot, rpmRoot := t.TempDir(), t.TempDir()
	output(t, "dpkg-deb", "-x", deb, debRoot)
	output(t, "sh", "-c", unpackRPM, "unpack", rpm, rpmRoot)
	copyright, err := os.ReadFile(filepath.Join(debRoot, "usr/share/doc/virtfirewalld/copyright"))
	rig.Must(t, err)
	notices, err := os.ReadFile(filepath.Join(rpmRoot, "usr/share/licenses/virtfirewalld/NOTICES"))
	rig.Must(t, err)
	linked := output(t, "go", "version", "-m", filepath.Join(tree, "bin/virtfirewalld"), filepath.Join(tree, "bin/virtfirewallctl"))
	modules := regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)`).FindAllStringSubmatch(linked, -1)
	if len(modules) < 5 {
		t.Fatalf("modules of the programs: %v in\n%s", modules, linked)
	}
	for _, m := range modules {
		if !strings.Contains(string(copyright), "\nFiles: "+m[1]+"/*\n") {
			t.Errorf("the copyright file does not speak of %s", m[1])
		}
		if !strings.Contains(string(notices), "\n"+m[1]+" "+m[2]+": ") {
			t.Errorf("the notices do not speak of %s %s", m[1], m[2])
		}
	}
	for _, want := range []string{"Files: std/*", "CoreOS", "Redistribution and use in source and binary forms", "common-licenses/Apache-2.0"} {
		if !strings.Contains(string(copyright), want) {
			t.Errorf("the copyright file does not say %q", want)
		}
	}
}

// filesBelow returns the texts of all files in a folder, by their path in it.
func filesBelow(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	rig.Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(text)
		return err
	}))
	return files
}
