package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// sinkRules returns rules that drop and count the generator's packets where they
// arrive on a device, before anything else is done with them. Datagrams that open a
// flow are smaller, and pass.
func sinkRules(device string) string {
	return fmt.Sprintf(`table netdev sink {
	chain arrived {
		type filter hook ingress device %s priority 0
		udp length %d counter drop
	}
}
`, device, pktgenSize-14-20)
}

// pktgenSize is the size of a frame: the smallest, without its checksum.
const pktgenSize = 60

// packets is what the kernel's packet generator is to send.
type packets struct {
	from     *host.Peer
	gateway  net.HardwareAddr
	src, dst netip.AddrPort
	count    int
}

// send sends the packets, and returns how long each took by the clock of the
// kernel: the generator hands over one packet after the other, and the processor
// does all that follows before it returns.
func (p packets) send() (each time.Duration, err error) {
	err = p.from.Do(func() error {
		// The main thread's /proc/net would be that of another namespace.
		const dir = "/proc/thread-self/net/pktgen/"
		write := func(file string, commands ...string) error {
			for _, c := range commands {
				if err := os.WriteFile(dir+file, []byte(c+"\n"), 0); err != nil {
					return fmt.Errorf("telling pktgen %q: %w", c, err)
				}
			}
			return nil
		}
		err := errors.Join(
			write("kpktgend_0", "rem_device_all", "add_device eth0"),
			write("eth0", p.commands()...),
			write("pgctrl", "start"))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(dir + "eth0")
		if err != nil {
			return err
		}
		each, err = pktgenResult(string(text), p.count)
		return err
	})
	return each, err
}

func (p packets) commands() []string {
	return []string{
		fmt.Sprintf("count %d", p.count),
		"clone_skb 0", "delay 0",
		fmt.Sprintf("pkt_size %d", pktgenSize),
		"dst_mac " + p.gateway.String(),
		"src_min " + p.src.Addr().String(), "src_max " + p.src.Addr().String(),
		"dst_min " + p.dst.Addr().String(), "dst_max " + p.dst.Addr().String(),
		fmt.Sprintf("udp_src_min %d", p.src.Port()), fmt.Sprintf("udp_src_max %d", p.src.Port()),
		fmt.Sprintf("udp_dst_min %d", p.dst.Port()), fmt.Sprintf("udp_dst_max %d", p.dst.Port()),
	}
}

// errElsewhere is a run whose figure is of something else: the kernel left packets
// to its thread ksoftirqd, which takes several together, or lost some there.
var errElsewhere = errors.New("not every packet was forwarded at once")

// sendTo sends the packets to the sink of a network namespace.
func (p packets) sendTo(sink string) (each time.Duration, err error) {
	before, err := sunk(sink)
	if err != nil {
		return 0, err
	}
	threadBefore, err := softirqThreads()
	if err != nil {
		return 0, err
	}
	if each, err = p.send(); err != nil {
		return 0, err
	}
	after, err := sunk(sink)
	if err != nil {
		return 0, err
	}
	if n := after - before; n != uint64(p.count) {
		return 0, fmt.Errorf("%w: of %d %d arrived", errElsewhere, p.count, n)
	}
	threadAfter, err := softirqThreads()
	if err != nil {
		return 0, err
	}
	if ran := threadAfter - threadBefore; ran > each*time.Duration(p.count)/200 {
		return 0, fmt.Errorf("%w: ksoftirqd ran for %s", errElsewhere, ran)
	}
	return each, nil
}

var pktgenLine = regexp.MustCompile(`Result: OK: (\d+)\(c\d+\+d\d+\) usec, (\d+) `)

// pktgenResult reads what pktgen says of a device: the time that each of count
// packets took.
func pktgenResult(text string, count int) (time.Duration, error) {
	m := pktgenLine.FindStringSubmatch(text)
	if m == nil {
		_, result, _ := strings.Cut(text, "Result:")
		return 0, fmt.Errorf("pktgen did not send: %q", strings.TrimSpace(result))
	}
	took, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, err
	}
	if m[2] != strconv.Itoa(count) {
		return 0, fmt.Errorf("pktgen sent %s packets of %d", m[2], count)
	}
	return time.Duration(took) * time.Microsecond / time.Duration(count), nil
}

// softirqThreads returns how long the kernel's threads for packets have run.
func softirqThreads() (ran time.Duration, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(name), "ksoftirqd/") {
			continue // another, or one that has ended
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "schedstat"))
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		nanoseconds, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the time of %s: %w", strings.TrimSpace(string(name)), err)
		}
		ran += time.Duration(nanoseconds)
	}
	return ran, nil
}

// sunk returns how many packets the sink of a network namespace has counted.
func sunk(path string) (uint64, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return 0, err
	}
	table := &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "sink"}
	rules, err := conn.GetRules(table, &nftables.Chain{Table: table, Name: "arrived"})
	if err != nil {
		return 0, fmt.Errorf("reading the sink: %w", err)
	}
	for _, rule := range rules {
		for _, e := range rule.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				return c.Packets, nil
			}
		}
	}
	return 0, errors.New("reading the sink: it has no counter")
}
