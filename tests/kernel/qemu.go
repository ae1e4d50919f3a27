package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// job is the guest's task, as a file in its folder.
type job struct {
	Factor float64
	Limit  time.Duration // of one package's tests, which then say where they hang
	Suites []suite
}

const (
	rootTag, layerTag, jobTag, treeTag = "root", "layer", "job", "tree"
	jobFile                            = "job.json"

	// treeDir is the source tree in the guest, which has a /tmp of its own and
	// so may not see it where it is.
	treeDir = "/run/tree"
	// jobDir is where the guest has its programs and its task.
	jobDir = "/run/job"

	// resultMark begins the guest's last line. Without that line a run failed,
	// whatever else was printed.
	resultMark = "guest: result: "
	resultGood = resultMark + "passed"
)

// boot runs the guest to its end and prints what its tests print. It works from
// the top of the source tree.
func boot(ctx context.Context, o options, j job, dir string) error {
	image, err := initrd(o.cache, filepath.Join(dir, "kernel"))
	if err != nil {
		return fmt.Errorf("making the guest's first root: %w", err)
	}
	first := filepath.Join(dir, "initrd")
	if err := os.WriteFile(first, image, 0o600); err != nil {
		return err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, jobFile), text, 0o600); err != nil {
		return err
	}
	log := filepath.Join(dir, "kernel.log")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", qemuArgs(o, first, dir, log)...)
	cmd.WaitDelay = 5 * time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting qemu: %w", err)
	}
	last, readErr := relay(bufio.NewReader(out))
	err = errors.Join(readErr, cmd.Wait(), context.Cause(ctx))
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	fmt.Printf("==> the guest ran for %.0f s and took %.0f s of the processors\n", time.Since(began).Seconds(), used.Seconds())
	if err == nil && last != resultGood {
		err = errors.New("tests failed")
		if !strings.HasPrefix(last, resultMark) {
			err = errors.New("the guest ended without a result")
		}
	}
	if err != nil {
		kernel, _ := os.ReadFile(log)
		fmt.Printf("==> the guest's kernel said:\n%s\n%s", kernel, complaints.String())
	}
	return err
}

// relay prints what the guest writes and returns its last line.
func relay(from *bufio.Reader) (last string, err error) {
	for {
		line, err := from.ReadString('\n')
		if line != "" {
			last = strings.TrimSpace(line)
			fmt.Println(strings.TrimRight(line, "\r\n"))
		}
		if err != nil {
			return last, nil // the guest has ended
		}
	}
}

// qemuArgs returns the arguments for a machine without network. The first serial line is the kernel's,
// the second carries what the tests print.
func qemuArgs(o options, first, dir, log string) []string {
	share := "local,security_model=none,readonly=on,multidevs=remap,"
	processors := []string{"-accel", "tcg,thread=multi", "-smp", "2"}
	if o.instructions {
		processors = []string{"-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0"}
	}
	return append(processors,
		"-cpu", "max", "-m", "3072",
		"-nographic", "-nodefaults", "-no-reboot",
		"-serial", "file:"+log, "-serial", "stdio",
		"-kernel", filepath.Join(o.cache, "vmlinuz"), "-initrd", first,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off rcupdate.rcu_expedited=1 rcupdate.rcu_normal_after_boot=0",
		"-virtfs", share+"path=/,mount_tag="+rootTag,
		"-virtfs", share+"path="+filepath.Join(o.cache, "tree")+",mount_tag="+layerTag,
		"-virtfs", share+"path="+dir+",mount_tag="+jobTag,
		"-virtfs", share+"path=.,mount_tag="+treeTag,
	)
}
