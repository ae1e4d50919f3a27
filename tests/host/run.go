package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// RunTimeout bounds a command that Run and its like wait for.
const RunTimeout = 30 * time.Second

// command is one program to run in a node.
type command struct {
	name  string
	uid   int // numeric user, and group of the same number, without others
	stdin string
	env   []string
	args  []string
}

// nsenter takes the program into the cgroup namespace from within: a thread of
// ours in there could not start a process in the host's cgroup on machines that
// mount cgroup2 with nsdelegate. It also changes the user, after that.
func (c command) cmd() *exec.Cmd {
	args := []string{"--cgroup=/proc/1/ns/cgroup"}
	if c.uid != 0 {
		id := strconv.Itoa(c.uid)
		args = append(args, "--setgid="+id, "--setuid="+id)
	}
	cmd := exec.Command("/usr/bin/nsenter", append(append(args, "--"), c.args...)...)
	cmd.Env = c.env
	if c.stdin != "" {
		cmd.Stdin = strings.NewReader(c.stdin)
	}
	return cmd
}

func (s *space) start(c command) (*Process, error) {
	if len(c.args) == 0 {
		return nil, fmt.Errorf("starting %s: no command given", c.name)
	}
	var p *Process
	err := s.do(func() (err error) {
		p, err = startProcess(c.name, c.cmd(), s.group)
		return err
	})
	return p, err
}

func (s *space) run(ctx context.Context, c command) (string, error) {
	c.name = strings.Join(c.args, " ")
	ctx, cancel := context.WithTimeout(ctx, Patient(RunTimeout))
	defer cancel()
	p, err := s.start(c)
	if err != nil {
		return "", err
	}
	err = p.Wait(ctx)
	if ctx.Err() != nil {
		p.killGroup()
	}
	out := p.Log()
	if err != nil {
		return out, fmt.Errorf("running %s: %w%s\n%s", c.name, err, packageHint(c.args[0], err), strings.TrimSpace(out))
	}
	return out, nil
}

// Run runs a command inside as root and returns its combined output. An error
// holds the output too.
func (h *Host) Run(args ...string) (string, error) {
	return h.space.run(context.Background(), command{args: args})
}

// RunAs runs a command as a numeric user, with the group of the same number
// and no others. A user that the host does not know is added first, under the
// name uUID: the bus refuses users without a name.
func (h *Host) RunAs(uid int, args ...string) (string, error) {
	if err := h.ensureUser(uid); err != nil {
		return "", err
	}
	return h.space.run(context.Background(), command{uid: uid, env: []string{"HOME=/"}, args: args})
}

func (h *Host) ensureUser(uid int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	entries := map[string]string{
		"/etc/passwd": fmt.Sprintf("u%d:x:%d:%d::/:/bin/sh\n", uid, uid, uid),
		"/etc/group":  fmt.Sprintf("u%d:x:%d:\n", uid, uid),
	}
	return h.Inside(func() error {
		for path, entry := range entries {
			data, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("adding user %d: %w", uid, err)
			}
			if hasID(string(data), uid) {
				continue
			}
			if err := os.WriteFile(path, append(data, entry...), 0o644); err != nil {
				return fmt.Errorf("adding user %d: %w", uid, err)
			}
		}
		return nil
	})
}

// hasID looks for a number in the third field of passwd(5) and group(5).
func hasID(table string, id int) bool {
	for line := range strings.Lines(table) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 2 && f[2] == strconv.Itoa(id) {
			return true
		}
	}
	return false
}

// RunInput runs a command as root with the given standard input.
func (h *Host) RunInput(stdin string, args ...string) (string, error) {
	return h.space.run(context.Background(), command{stdin: stdin, args: args})
}

// Must runs a command as root that has to succeed and returns its output.
func (h *Host) Must(args ...string) string {
	out, err := h.Run(args...)
	h.fail(err)
	return out
}

// Start starts a command as root in the background. It ends with the host at
// the latest.
func (h *Host) Start(name string, args ...string) *Process {
	return h.StartEnv(name, nil, args...)
}

// StartEnv is Start with further environment variables, each as NAME=value.
func (h *Host) StartEnv(name string, env []string, args ...string) *Process {
	return h.launch(h.space, command{name: name, env: env, args: args})
}

func (h *Host) launch(s *space, c command) *Process {
	p, err := s.start(c)
	h.fail(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.processes = append(h.processes, p)
	return p
}

// Processes lists what Start has started, ended ones too.
func (h *Host) Processes() []*Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Process(nil), h.processes...)
}
