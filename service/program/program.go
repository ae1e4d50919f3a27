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

// Job is one run of a program.
type Job struct {
	Path    string
	Args    []string
	Stdin   string
	Started *Started // records the process; may be nil
}

// Result is what a Job came to.
type Result struct {
	Out string // standard output
	Err error
}

// Run runs a program with a standard input and returns its standard output. It runs
// on the calling thread, whose network namespace the program works on.
func Run(ctx context.Context, stdin, path string, args ...string) (string, error) {
	r := RunAll(ctx, Job{Path: path, Args: args, Stdin: stdin})[0]
	return r.Out, r.Err
}

// RunAll runs programs at once and waits until all have ended, whether or not one
// fails. All are started on the calling thread, whose network namespace they work on.
func RunAll(ctx context.Context, jobs ...Job) []Result {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	runs := make([]*run, len(jobs))
	for i, j := range jobs {
		runs[i] = j.start(ctx)
	}
	results := make([]Result, len(jobs))
	for i, r := range runs {
		results[i] = r.wait(ctx)
	}
	return results
}

// run is a program that was started, or could not be.
type run struct {
	cmd             *exec.Cmd
	out, complaints bytes.Buffer
	err             error
}

func (j Job) start(ctx context.Context) *run {
	r := &run{cmd: exec.CommandContext(ctx, j.Path, j.Args...)}
	r.cmd.WaitDelay = time.Second
	r.cmd.Env = append(os.Environ(), "LC_ALL=C")
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = strings.NewReader(j.Stdin), &r.out, &r.complaints
	if r.err = r.cmd.Start(); r.err == nil {
		j.Started.Add(r.cmd.Process.Pid)
	}
	return r
}

func (r *run) wait(ctx context.Context) Result {
	if r.err == nil {
		r.err = r.cmd.Wait()
	}
	if r.err != nil {
		return Result{Err: fmt.Errorf("running %s: %w: %s", filepath.Base(r.cmd.Path), errors.Join(r.err, ctx.Err()), strings.TrimSpace(r.complaints.String()))}
	}
	return Result{Out: r.out.String()}
}
