package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	hosts "github.com/virtfirewalld/virtfirewalld/tests/host"
)

// listen opens a packet socket on a guest that reports the kernel's state of
// checksums.
func listen(t *testing.T, guest *hosts.Peer) int {
	t.Helper()
	var fd int
	err := guest.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		ip := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_IP))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(ip)); err != nil {
			return err
		}
		limit := unix.NsecToTimeval(int64(5 * time.Second))
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: eth0.Index}))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// arrives sends a datagram from the host and reports whether it has a right
// checksum when the guest gets it.
func arrives(t *testing.T, h *hosts.Host, fd int, to string) (right bool) {
	t.Helper()
	var from int
	err := h.Do(func() error {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			return err
		}
		defer conn.Close()
		from = conn.LocalAddr().(*net.UDPAddr).Port
		_, err = conn.Write([]byte("an offer of a lease"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	packet, aux := make([]byte, 2048), make([]byte, 256)
	for {
		n, m, _, _, err := unix.Recvmsg(fd, packet, aux, 0)
		if err != nil {
			t.Fatal("the guest gets nothing: ", err)
		}
		if n < 28 || packet[0] != 0x45 || packet[9] != unix.IPPROTO_UDP || int(binary.BigEndian.Uint16(packet[20:])) != from {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(aux[:m])
		if err != nil || len(messages) != 1 {
			t.Fatalf("%d control messages: %v", len(messages), err)
		}
		status := binary.NativeEndian.Uint32(messages[0].Data) // tpacket_auxdata.tp_status
		said := status&unix.TP_STATUS_CSUMNOTREADY == 0
		if is := sum(packet[:n]) == 0xffff; is != said {
			t.Errorf("the checksum's being right is %v, but the kernel says %v", is, said)
		}
		return said
	}
}

// sum returns the sum of a UDP packet over IPv4 with its pseudo header: 0xffff if
// its checksum is right.
func sum(packet []byte) uint32 {
	length := binary.BigEndian.Uint16(packet[24:])
	data := append([]byte{0, unix.IPPROTO_UDP, byte(length >> 8), byte(length)}, packet[12:20+length]...)
	if len(data)%2 == 1 {
		data = append(data, 0)
	}
	var s uint32
	for i := 0; i < len(data); i += 2 {
		s += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return s
}

// TestReplyArrivesWithItsChecksum through each iptables, and as the kernel has
// it: with the tc action csum where that is there.
func TestReplyArrivesWithItsChecksum(t *testing.T) {
	log := func(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(failing{t}, nil)) }
	ways := map[string]func(t *testing.T) (*hosts.Host, *Checksums){
		"as the kernel has it": func(t *testing.T) (*hosts.Host, *Checksums) { return hosts.New(t), NewChecksums(log(t)) },
	}
	for _, variant := range variants {
		ways[variant] = func(t *testing.T) (*hosts.Host, *Checksums) { return withIptables(t, variant), strict(t) }
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, c := way(t)
			h.Bridge("virbr0", "192.168.122.1/24")
			h.Bridge("virbr1", "192.168.123.1/24")
			fd0 := listen(t, h.Guest("virbr0", "one", "192.168.122.2/24"))
			fd1 := listen(t, h.Guest("virbr1", "two", "192.168.123.2/24"))
			if arrives(t, h, fd0, "192.168.122.2:68") {
				t.Fatal("the checksum is right without help, so the test shows nothing")
			}
			fill(t, h, c, map[string]string{"virbr0": "default"})
			if !arrives(t, h, fd0, "192.168.122.2:68") {
				t.Error("a reply has no checksum in spite of help")
			}
			if arrives(t, h, fd0, "192.168.122.2:69") {
				t.Error("help touches packets to other ports")
			}
			if arrives(t, h, fd1, "192.168.123.2:68") {
				t.Error("help touches another bridge")
			}
			fill(t, h, c, nil)
			if arrives(t, h, fd0, "192.168.122.2:68") {
				t.Error("help goes on after its end")
			}
		})
	}
}

func BenchmarkFill1000(b *testing.B) {
	bridges := make(map[string]DHCP)
	for i := range 1000 {
		bridges[fmt.Sprint("virbr", i)] = DHCP{Network: fmt.Sprint("network", i)}
	}
	h := hosts.New(b)
	c := NewChecksums(slog.New(slog.DiscardHandler))
	once := func() error { return c.Fill(b.Context(), bridges) }
	if err := h.Inside(once); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := h.Inside(once); err != nil {
			b.Fatal(err)
		}
	}
}
