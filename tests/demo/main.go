// Command demo shows the main job on a throw-away host: libvirt's default
// network, handed to the service over D-Bus beside a running firewalld, and a
// guest that lives on it. It ends with 0 only if every step was true.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

func main() {
	keep := flag.Bool("keep", false, "leave the host up afterwards, with a shell in it")
	bin := flag.String("bin", "bin", "directory of the built programs")
	flag.Parse()
	if err := run(*bin, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(bin string, keep bool) (err error) {
	out := newPrinter(os.Stdout)
	started := time.Now()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("setting up: %v", r)
		}
	}()
	h, err := host.Create(context.Background(), host.Config{Name: "demo"})
	if err != nil {
		return err
	}
	defer h.Close()
	d := demo{host: h, out: out}
	if err := d.setUp(bin); err != nil {
		return err
	}
	out.note("a throw-away host with firewalld, dnsmasq and a bridge virbr0, in %s", time.Since(started).Round(time.Millisecond))
	failed := d.play()
	if keep {
		out.hints()
		shell(h)
	}
	if failed > 0 {
		return fmt.Errorf("%d steps were not as they should be", failed)
	}
	out.note("all of it was true, in %s", time.Since(started).Round(time.Millisecond))
	return nil
}

// setUp makes the host that the demonstration runs on: all that libvirt would
// have made, but for the firewall.
func (d *demo) setUp(bin string) error {
	h := d.host
	if err := install(h, bin); err != nil {
		return err
	}
	if err := h.WriteFile("/srv/www/index.html", []byte("hello from the internet\n"), 0o644); err != nil {
		return err
	}
	if err := h.WriteFile("/root/default.xml", []byte(defaultNetwork), 0o644); err != nil {
		return err
	}
	h.Bus()
	h.Bridge("virbr0", "192.168.122.1/24")
	d.internet = h.Internet()
	h.RouteBack("192.168.122.0/24")
	d.guest = h.Guest("virbr0", "guest")
	h.Dnsmasq("virbr0", "--host-record=www.example.net,203.0.113.1")
	h.Firewalld("nftables")
	d.internet.Start("web server", "busybox", "httpd", "-f", "-p", "80", "-h", "/srv/www")
	d.guest.Start("ssh server", "socat", "TCP-LISTEN:22,fork,reuseaddr", "SYSTEM:echo SSH-2.0-guest")
	return nil
}

// install puts programs and bus files where a package would.
func install(h *host.Host, bin string) error {
	files := map[string]string{
		filepath.Join(bin, "virtfirewalld"):           "/usr/sbin/virtfirewalld",
		filepath.Join(bin, "virtfirewallctl"):         "/usr/bin/virtfirewallctl",
		"dbus/org.virtfirewall.NetworkFirewall1.conf": "/usr/share/dbus-1/system.d/org.virtfirewall.NetworkFirewall1.conf",
	}
	for from, to := range files {
		if err := h.CopyIn(from, to); err != nil {
			return fmt.Errorf("installing: %w", err)
		}
	}
	return nil
}

// shell runs a shell inside the host on the terminal until it ends.
func shell(h *host.Host) {
	cmd := exec.Command("nsenter", "--target", fmt.Sprint(h.PID()), "--all", "env", "-i", "HOME=/root",
		"TERM="+os.Getenv("TERM"), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PS1=demo# ", "bash", "--norc")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the shell ended:", err)
	}
}

const defaultNetwork = `<network>
  <name>default</name>
  <uuid>9a05da11-e96b-47f3-8253-a3a482e445f5</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <mac address='52:54:00:0a:cd:21'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
    </dhcp>
  </ip>
</network>
`
