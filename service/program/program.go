// Package program runs other programs to their end: no shell, a time limit, and the
// program's standard error in the error.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Timeout bounds one run. iptables waits for others' locks within it.
const Timeout = 30 * time.Second

// Run runs a program with a standard input and returns its standard output. It runs
// on the calling thread, whose network namespace the program works on.
func Run(ctx context.Context, stdin, path string, args ...string) (string, error) {
	return RunNoted(ctx, nil, stdin, path, args...)
}

// RunNoted is Run of a program that is recorded in started, which may be nil.
func RunNoted(ctx context.Context, started *Started, stdin, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaints
	err := cmd.Start()
	if err == nil {
		started.add(cmd.Process.Pid)
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("running %s: %w: %s", filepath.Base(path), errors.Join(err, ctx.Err()), strings.TrimSpace(complaints.String()))
	}
	return out.String(), nil
}
