package cli

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	agentProgram = "pkttyagent"
	agentStart   = 5 * time.Second
)

// onTerminal reports whether a stream of the command is a terminal, and so has a
// user. Standard input alone is no evidence: it may be a document.
func onTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// startAgent starts an agent, so that polkit can ask on this terminal until stop
// is called. It takes precedence over the session's agent: with --fallback,
// polkit 122 does not find it where there is no session, as after su or in a
// container. Without the program, or as root, it does nothing.
func startAgent(ctx context.Context) (stop func()) {
	nothing := func() {}
	path, err := exec.LookPath(agentProgram)
	if err != nil || os.Geteuid() == 0 {
		return nothing
	}
	ready, notify, err := os.Pipe()
	if err != nil {
		return nothing
	}
	defer ready.Close()
	// It registers for its parent process, and closes the pipe once it has.
	agent := exec.Command(path, "--notify-fd=3")
	agent.ExtraFiles = []*os.File{notify}
	agent.Stderr = os.Stderr
	err = agent.Start()
	notify.Close()
	if err != nil {
		return nothing
	}
	defer context.AfterFunc(ctx, func() { _ = agent.Process.Signal(syscall.SIGTERM) })()
	_ = ready.SetReadDeadline(time.Now().Add(agentStart))
	_, _ = ready.Read(make([]byte, 1))
	return func() { endAgent(agent) }
}

// endAgent ends the agent, which first restores the terminal's settings.
func endAgent(agent *exec.Cmd) {
	defer time.AfterFunc(agentStart, func() { _ = agent.Process.Kill() }).Stop()
	_ = agent.Process.Signal(syscall.SIGTERM)
	_ = agent.Wait()
}
