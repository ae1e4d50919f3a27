package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// guestMain is the guest's init. It never returns.
func guestMain() {
	err := enterRoot()
	if console, openErr := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0); openErr == nil {
		os.Stdout, os.Stderr = console, console
	}
	if err == nil {
		err = runJob()
	}
	if err != nil {
		fmt.Println("guest:", err)
		fmt.Println(resultMark + "failed")
	} else {
		fmt.Println(resultGood)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// enterRoot puts the guest's root together: the machine's files, the kernel's
// modules over them, and a layer in memory for what is written.
func enterRoot() error {
	const shared = "ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose"
	if err := loadModules(); err != nil {
		return err
	}
	steps := []struct{ source, target, kind, options string }{
		{rootTag, "/machine", "9p", shared},
		{layerTag, "/layer", "9p", shared},
		{"tmpfs", "/memory", "tmpfs", "mode=755"},
		{"overlay", "/root", "overlay", "lowerdir=/layer:/machine,upperdir=/memory/upper,workdir=/memory/work"},
		{"proc", "/root/proc", "proc", ""},
		{"sysfs", "/root/sys", "sysfs", ""},
		{"devtmpfs", "/root/dev", "devtmpfs", ""},
		{"tmpfs", "/root/dev/shm", "tmpfs", "mode=1777"},
		{"cgroup2", "/root/sys/fs/cgroup", "cgroup2", ""},
		{"tmpfs", "/root/tmp", "tmpfs", "mode=1777"},
		{"tmpfs", "/root/run", "tmpfs", "mode=755"},
		{jobTag, "/root" + jobDir, "9p", shared},
		{treeTag, "/root" + treeDir, "9p", shared},
	}
	for _, s := range steps {
		if err := mount(s.source, s.target, s.kind, s.options); err != nil {
			return err
		}
	}
	if err := unix.Chdir("/root"); err != nil {
		return err
	}
	// The first root cannot be left by pivot_root.
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	return unix.Chdir("/")
}

func mount(source, target, kind, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if kind == "overlay" {
		for _, dir := range []string{"/memory/upper", "/memory/work"} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
	}
	if err := unix.Mount(source, target, kind, 0, options); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", kind, target, err)
	}
	return nil
}

func loadModules() error {
	files, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading %s: %w", path, err)
		}
	}
	return nil
}

// runJob runs every suite, also after one failed.
func runJob() error {
	fmt.Printf("guest: up after %s with kernel %s\n", uptime(), release())
	if err := unix.Sethostname([]byte("kernel")); err != nil {
		return err
	}
	if out, err := command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("raising lo: %w: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(jobDir, jobFile))
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	var errs []error
	for _, s := range j.Suites {
		began := time.Now()
		err := j.run(s)
		fmt.Printf("guest: %s took %.0f s\n", s.Folder, time.Since(began).Seconds())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Folder, err))
		}
	}
	return errors.Join(errs...)
}

func (j job) run(s suite) error {
	for _, module := range s.Modules {
		if out, err := command("modprobe", module).CombinedOutput(); err != nil {
			return fmt.Errorf("loading %s: %w: %s", module, err, out)
		}
	}
	args := s.Program
	if args == nil {
		args = s.testArgs(j.Limit)
	}
	cmd := command(filepath.Join(jobDir, s.binary()), args...)
	cmd.Dir = treeDir
	if s.Program == nil {
		cmd.Dir = filepath.Join(treeDir, s.Folder)
	}
	cmd.Env = append(cmd.Env, "VIRTFIREWALLD_TEST_PROGRAMS="+jobDir,
		"VIRTFIREWALLD_TEST_FACTOR="+strconv.FormatFloat(j.Factor, 'g', -1, 64))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func (s suite) testArgs(limit time.Duration) []string {
	args := []string{"-test.v", "-test.timeout=" + limit.String(), "-test.parallel=2"}
	if pattern := s.pattern(); pattern != "" {
		args = append(args, "-test.run="+pattern)
	}
	return args
}

func command(name string, args ...string) *exec.Cmd {
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if !strings.Contains(name, "/") {
		name = "/usr/sbin/" + name
	}
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=" + path, "HOME=/root", "LANG=C.UTF-8"}
	return cmd
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

func uptime() string {
	text, _ := os.ReadFile("/proc/uptime")
	seconds, _, _ := strings.Cut(string(text), " ")
	return seconds + " s"
}
