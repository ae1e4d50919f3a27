package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// What polkit and its actions are called, and errors that come of its answers.
const (
	PolkitName   = "org.freedesktop.PolicyKit1"
	PolkitPolicy = "org.virtfirewall.networkfirewall1.policy"
	ActionPrefix = "org.virtfirewall.networkfirewall1."

	Denied      = "org.freedesktop.DBus.Error.AccessDenied"
	NeedsPeople = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
)

// Users without rights of their own.
const (
	Alice = 2001
	Bob   = 2002
	Carol = 2003
)

// PolkitRules is the directory of the administrator's rules.
const PolkitRules = "/etc/polkit-1/rules.d"

// Polkit is the real polkitd on a rig's host.
type Polkit struct{ r *Rig }

// WithPolkit makes a host with polkitd and the service, and these rules of the
// administrator's.
func WithPolkit(t testing.TB, rules string) *Rig {
	t.Helper()
	r := New(t)
	r.Polkit.Rules(rules)
	r.Polkit.Start()
	r.StartDaemon()
	return r
}

// Start starts polkitd, and waits until it is there.
func (p *Polkit) Start() *host.Process {
	p.r.T.Helper()
	return p.r.Host.Polkit()
}

// Rules puts the administrator's rules in place before polkitd starts.
func (p *Polkit) Rules(text string) {
	p.r.T.Helper()
	p.r.Write(PolkitRules+"/10-test.rules", text)
}

// Join adds a user to a group of the host.
func (p *Polkit) Join(group string, uid int) {
	p.r.T.Helper()
	_, err := p.r.RunAs(uid, "true")
	Must(p.r.T, err)
	p.r.Must("sh", "-c", fmt.Sprintf("getent group %s >/dev/null || groupadd -r %s; gpasswd -a u%d %s", group, group, uid, group))
}

// Remove keeps the bus from starting polkitd.
func (p *Polkit) Remove() {
	p.r.T.Helper()
	err := p.r.Inside(func() error { return os.Remove("/usr/share/dbus-1/system-services/" + PolkitName + ".service") })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.r.T.Fatal(err)
	}
	p.r.OK(p.r.Conn.BusObject().Call("org.freedesktop.DBus.ReloadConfig", 0))
}

// Rule lets a polkit rule answer where a condition holds; id is the action's
// last part.
func Rule(id, condition, result string) string {
	return fmt.Sprintf("polkit.addRule(function(action, subject) {\n"+
		"  if (action.id == %q && (%s)) return polkit.Result.%s;\n});\n", ActionPrefix+id, condition, result)
}

// WantDenied checks that a call was denied for a reason that has these words.
func (r *Rig) WantDenied(call *godbus.Call, words ...string) {
	r.T.Helper()
	r.WantError(call, Denied)
	if !HasAll(Message(call), words) {
		r.T.Errorf("%s was denied with %q, which lacks one of %q", call.Method, Message(call), words)
	}
}

// Person is a connection to the host's bus as a user.
type Person struct{ *Client }

// As connects to the bus as a user, which it creates if need be.
func (r *Rig) As(uid int) *Person {
	r.T.Helper()
	_, err := r.RunAs(uid, "true")
	Must(r.T, err)
	var groups []uint32
	for _, id := range strings.Fields(r.Must("id", "-G", fmt.Sprint(uid))) {
		n, err := strconv.ParseUint(id, 10, 32)
		Must(r.T, err)
		groups = append(groups, uint32(n))
	}
	var sock net.Conn
	Must(r.T, r.Inside(func() (err error) {
		if err := become(uid, groups); err != nil {
			return fmt.Errorf("becoming user %d: %w", uid, err)
		}
		sock, err = net.Dial("unix", "/run/dbus/system_bus_socket")
		return err
	}))
	conn, err := godbus.NewConn(sock)
	if err == nil {
		err = conn.Auth([]godbus.Auth{godbus.AuthExternal(fmt.Sprint(uid))})
	}
	if err == nil {
		err = conn.Hello()
	}
	if err != nil {
		r.T.Fatalf("connecting to the bus as user %d: %v", uid, err)
	}
	p := &Person{&Client{conn}}
	r.T.Cleanup(p.Leave)
	return p
}

// become makes the calling thread a user's, as a login does. The kernel
// identifies a client by its thread, which only raw calls change for this thread
// alone; it is thrown away afterwards. Polkit 126 uses the groups of the connection,
// earlier versions the user's.
func become(uid int, groups []uint32) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return e
	}
	keep := ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(groups[0]), uintptr(groups[0]), keep); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), keep); e != 0 {
		return e
	}
	return nil
}

// Leave closes the connection.
func (p *Person) Leave() { p.Conn.Close() }

// Interactively is Call with the flag that lets a person be asked. It makes the
// message itself, since godbus drops that flag.
func (p *Person) Interactively(path godbus.ObjectPath, method string, args ...any) *godbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), CallTimeout)
	defer cancel()
	dot := strings.LastIndex(method, ".")
	msg := &godbus.Message{
		Type: godbus.TypeMethodCall, Flags: godbus.FlagAllowInteractiveAuthorization, Body: args,
		Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldPath: godbus.MakeVariant(path), godbus.FieldDestination: godbus.MakeVariant(ManagerName),
			godbus.FieldInterface: godbus.MakeVariant(method[:dot]), godbus.FieldMember: godbus.MakeVariant(method[dot+1:]),
		},
	}
	if len(args) > 0 {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
	}
	call := <-p.Conn.SendWithContext(ctx, msg, make(chan *godbus.Call, 1)).Done
	call.Method = method // for messages
	return call
}
