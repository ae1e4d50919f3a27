package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// wire sends finished messages to the kernel, or to a recorder in tests.
type wire interface {
	// exchange returns nil when the kernel has confirmed all messages.
	exchange(messages []netlink.Message) error
	portID() uint32
	close() error
}

// errUnknown means that messages were sent and the kernel's answer was lost: the
// kernel may have done what they ask, or not.
var errUnknown = errors.New("the kernel's answer was lost")

// Buffer sizes. Answers are small but each is charged as a packet of its own,
// and one batch can fail in thousands of places.
const (
	receiveBuffer = 4 << 20
	sendMargin    = 4096
)

// socket is the one lasting netlink connection that writes. The owner flag
// binds the table to it, so no other may write (NFT_TABLE_F_OWNER).
type socket struct {
	conn     *netlink.Conn
	sequence uint32
	answers  []byte
}

func dial(netNS int) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netNS})
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	// Capped answers leave the request out: only then do the answers to a
	// batch that fails in many places fit the buffer. Both options are
	// older than the oldest kernel supported (4.12), so failing is fatal.
	for _, o := range []netlink.ConnOption{netlink.ExtendedAcknowledge, netlink.CapAcknowledge} {
		if err := conn.SetOption(o, true); err != nil {
			return nil, errors.Join(fmt.Errorf("setting netlink option %d: %w", o, err), conn.Close())
		}
	}
	if err := conn.SetReadBuffer(receiveBuffer); err != nil {
		return nil, errors.Join(fmt.Errorf("sizing the receive buffer: %w", err), conn.Close())
	}
	return &socket{conn: conn, answers: make([]byte, 1<<16)}, nil
}

func (s *socket) portID() uint32 { return s.conn.PID() }
func (s *socket) close() error   { return s.conn.Close() }

// exchange sends the messages in one datagram, which the kernel processes before
// send returns, and reads the answers.
func (s *socket) exchange(messages []netlink.Message) error {
	s.number(messages)
	datagram, err := marshal(messages)
	if err != nil {
		return err
	}
	if err := s.growSendBuffer(len(datagram)); err != nil {
		return err
	}
	if err := s.send(datagram); err != nil {
		return fmt.Errorf("sending %d bytes to nf_tables: %w", len(datagram), err)
	}
	return s.receive(messages)
}

// number assigns sequence numbers and asks for one confirmation, of the last
// message that is not the batch's end: kernels before 6.13 ignore it there.
func (s *socket) number(messages []netlink.Message) {
	last := confirmed(messages)
	for i := range messages {
		s.sequence++
		h := &messages[i].Header
		h.Sequence, h.PID = s.sequence, s.portID()
		if i == last {
			h.Flags |= netlink.Acknowledge
		}
		h.Length = uint32(unix.NLMSG_HDRLEN + len(messages[i].Data))
	}
}

// confirmed returns the index of the message whose confirmation is asked for.
func confirmed(messages []netlink.Message) int {
	last := len(messages) - 1
	if last > 0 && messages[last].Header.Type == unix.NFNL_MSG_BATCH_END {
		last--
	}
	return last
}

func marshal(messages []netlink.Message) ([]byte, error) {
	size := 0
	for _, m := range messages {
		size += align(unix.NLMSG_HDRLEN + len(m.Data))
	}
	out := make([]byte, 0, size)
	for _, m := range messages {
		if len(m.Data)%unix.NLMSG_ALIGNTO != 0 {
			return nil, fmt.Errorf("encoding %s: length %d is not aligned", describe(m), len(m.Data))
		}
		out = binary.NativeEndian.AppendUint32(out, m.Header.Length)
		out = binary.NativeEndian.AppendUint16(out, uint16(m.Header.Type))
		out = binary.NativeEndian.AppendUint16(out, uint16(m.Header.Flags))
		out = binary.NativeEndian.AppendUint32(out, m.Header.Sequence)
		out = binary.NativeEndian.AppendUint32(out, m.Header.PID)
		out = append(out, m.Data...)
	}
	return out, nil
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// growSendBuffer makes sure that a datagram fits the send buffer. SetWriteBuffer
// tries SO_SNDBUFFORCE, which needs CAP_NET_ADMIN in the initial user namespace,
// and falls back to SO_SNDBUF, which net.core.wmem_max limits.
func (s *socket) growSendBuffer(size int) error {
	have, err := s.conn.WriteBuffer()
	if err != nil {
		return fmt.Errorf("reading the size of the send buffer: %w", err)
	}
	if have >= size+sendMargin {
		return nil
	}
	if err := s.conn.SetWriteBuffer(size + sendMargin); err != nil {
		return fmt.Errorf("sizing the send buffer for %d bytes: %w", size, err)
	}
	if have, err = s.conn.WriteBuffer(); err == nil && have < size {
		return fmt.Errorf("a change of %d bytes needs a larger send buffer than the kernel allows (%d): raise net.core.wmem_max", size, have)
	}
	return err
}

func (s *socket) send(datagram []byte) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		for {
			sendErr = unix.Sendto(int(fd), datagram, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if sendErr != unix.EINTR {
				return true
			}
		}
	})
	return errors.Join(err, sendErr)
}

// receive reads all answers and returns the first refusal as an error, since
// later ones mostly follow from it.
func (s *socket) receive(sent []netlink.Message) error {
	want := sent[confirmed(sent)].Header.Sequence
	var first error
	done := false
	for {
		n, err := s.read()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errUnknown, err)
		}
		for _, a := range parseAnswers(s.answers[:n]) {
			done = done || a.sequence == want
			if a.errno != 0 && first == nil {
				first = refusal(sent, a)
			}
		}
	}
	if first == nil && !done {
		return errUnknown
	}
	return first
}

// read reads one datagram without waiting. The library's Receive cannot: with a
// deadline in the past it returns before it reads.
func (s *socket) read() (n int, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctlErr := raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), s.answers, unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return true
			}
		}
	})
	return n, errors.Join(ctlErr, err)
}

// transact runs queue with a connection of the library that only encodes, and
// sends what it queued as one transaction. Only here is the library's hook for
// tests used: nothing else allows messages to be completed before they are sent.
func transact(w wire, queue func(*nftables.Conn) error) error {
	var batch []netlink.Message
	conn, err := nftables.New(nftables.WithTestDial(func(messages []netlink.Message) ([]netlink.Message, error) {
		if len(messages) > 0 {
			batch = messages
		}
		return nil, nil
	}))
	if err != nil {
		return fmt.Errorf("preparing a transaction: %w", err)
	}
	if err := queue(conn); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("encoding a transaction: %w", err)
	}
	if len(batch) == 0 {
		return nil
	}
	if err := finish(batch); err != nil {
		return err
	}
	return w.exchange(batch)
}

// finish corrects the library's encoding: it lacks a flag of masquerade, and asks
// the kernel to echo each rule.
func finish(batch []netlink.Message) error {
	for i := range batch {
		data, err := specifyMasqueradePorts(batch[i])
		if err != nil {
			return err
		}
		batch[i].Data = data
		batch[i].Header.Flags &^= netlink.Echo
	}
	return nil
}
