package nfnl

import (
	"context"
	"errors"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Timeout bounds how long a connection waits for answers.
const Timeout = 10 * time.Second

// HeaderLen is the length of struct nfgenmsg, which begins every message.
const HeaderLen = 4

// ErrChanged means that nf_tables changed while it was read: what was read may lack
// something.
var ErrChanged = errors.New("the ruleset keeps changing")

// Type returns the header type of an nf_tables message.
func Type(message int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message)
}

// Request returns an nf_tables request about a family's objects.
func Request(message int, flags netlink.HeaderFlags, family byte, attrs []netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attrs)
	return netlink.Message{
		Header: netlink.Header{Type: Type(message), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
	}, err
}

// Body returns the attributes of a netfilter message.
func Body(data []byte) Attributes { return data[min(len(data), HeaderLen):] }

// Conn is a connection that reads nf_tables. It handles answers one by one: the
// library would keep all of them and parse each rule. It must not be used after an
// error, as the rest of an answer could be taken for the next.
type Conn struct{ conn *netlink.Conn }

// Open connects to the nf_tables of a network namespace; netNS 0 is that of the
// calling thread. The connection works until ctx's deadline, at most Timeout.
func Open(ctx context.Context, netNS int) (*Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netNS})
	if err != nil {
		return nil, err
	}
	c := &Conn{conn}
	if err := c.Within(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// Within sets the time until which answers are waited for, anew for a connection that
// lasts.
func (c *Conn) Within(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	return c.conn.SetReadDeadline(deadline)
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Dump calls each for all objects of a kind that a family has, or those that the
// attributes select.
func (c *Conn) Dump(message int, family byte, attrs []netlink.Attribute, each func(Attributes)) error {
	return c.request(message, netlink.Dump, family, attrs, each)
}

// Get calls each for the one object that the attributes name.
func (c *Conn) Get(message int, family byte, attrs []netlink.Attribute, each func(Attributes)) error {
	return c.request(message, 0, family, attrs, each)
}

func (c *Conn) request(message int, flags netlink.HeaderFlags, family byte, attrs []netlink.Attribute, each func(Attributes)) error {
	m, err := Request(message, flags, family, attrs)
	if err != nil {
		return err
	}
	sent, err := c.conn.Send(m)
	if err != nil {
		return err
	}
	interrupted := false
	for m, err := range c.conn.ReceiveIter() {
		if errors.Is(err, unix.EINTR) {
			return ErrChanged
		}
		if err != nil {
			return err
		}
		if m.Header.Sequence != sent.Header.Sequence || len(m.Data) < HeaderLen {
			continue
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		each(Body(m.Data))
	}
	if interrupted {
		return ErrChanged
	}
	return nil
}
