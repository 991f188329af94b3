package underlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// UDP is a carrier over one UDP socket. Where the system can, whole batches of whole messages
// cross a system call.
//
// The socket lets datagrams be fragmented on the way: an overlay that is a little too large for
// one path then works slowly there, where it would otherwise lose every full packet without a
// word. Only what Probe sends is not fragmented.
type UDP struct {
	conn  *net.UDPConn
	local netip.AddrPort
	body  udpBody
	probe prober
	count counters
	close sync.Once
}

// A udpBody moves messages through a socket that UDP owns. Its errors are those of Carrier.
type udpBody interface {
	source
	another() source // with buffers of its own
	send(ms []Message) error
	offloads() (gso, gro bool)
}

// A source is where messages come out of a socket.
type source interface {
	receive(ms []Message) (int, error)
}

// ListenUDP opens a UDP socket at addr, written host:port. Without a host it is reached by IPv4 and
// IPv6, as far as the machine has them; an IPv4 or IPv6 address as host means that one
// alone, but "[::]" means both. Port 0 is any free port. The context bounds looking up the host.
func ListenUDP(ctx context.Context, addr string, cfg Config) (*UDP, error) {
	cfg = cfg.withDefaults()
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, udpNetwork(addr), addr)
	if err != nil {
		return nil, fmt.Errorf("underlay: %w", err)
	}
	conn := pc.(*net.UDPConn)
	u := &UDP{conn: conn, local: unmapped(conn.LocalAddr().(*net.UDPAddr).AddrPort())}
	u.body, err = openUDPBody(conn, cfg, &u.count)
	if err == nil {
		err = u.probe.open(conn)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("underlay: prepare the socket at %s: %w", u.local, err)
	}
	return u, nil
}

// udpNetwork keeps 0.0.0.0 to IPv4; package net would take it for every address there is.
func udpNetwork(addr string) string {
	if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().Is4() {
		return "udp4"
	}
	return "udp"
}

// Receive implements Carrier.
func (u *UDP) Receive(ms []Message) (int, error) { return u.receive(u.body, ms) }

// Receiver returns one more receiver of the carrier.
func (u *UDP) Receiver() Receiver { return &udpReceiver{u, u.body.another()} }

type udpReceiver struct {
	u    *UDP
	from source
}

func (r *udpReceiver) Receive(ms []Message) (int, error) { return r.u.receive(r.from, ms) }

func (u *UDP) receive(from source, ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	n, err := from.receive(ms)
	if err != nil {
		return 0, closedOr("receive", err)
	}
	u.count.received(ms[:n])
	return n, nil
}

// Send implements Carrier. It waits while the socket's buffer is full. A destination that cannot
// be reached costs its own datagrams only.
func (u *UDP) Send(ms []Message) error {
	u.count.messagesSent.Add(uint64(len(ms)))
	if err := u.body.send(ms); err != nil {
		return closedOr("send", err)
	}
	return nil
}

// Probe implements Carrier. A datagram for which the socket's buffer has no room is lost, as on the way.
func (u *UDP) Probe(m Message) error {
	err := m.checkOne()
	if err == nil {
		err = checkAddressed(&m)
	}
	if err == nil {
		u.count.messagesSent.Add(1)
		err = u.probe.send(&m)
	}
	if err != nil {
		u.count.sendErrors.Add(1)
		return closedOr("probe", err)
	}
	u.count.datagramsSent.Add(1)
	return nil
}

// closedOr returns net.ErrClosed itself if that is what err says, and otherwise err with the
// act that failed.
func closedOr(act string, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return fmt.Errorf("underlay: %s: %w", act, err)
}

// LocalAddr returns the address of the socket, whose IP address is unspecified when it is
// reached by all.
func (u *UDP) LocalAddr() netip.AddrPort { return u.local }

// Close implements Carrier. Receive and Send return at once.
func (u *UDP) Close() error {
	var err error
	u.close.Do(func() {
		u.countDrops()
		err = u.conn.Close()
	})
	return err
}

// Stats returns what the carrier has done so far.
func (u *UDP) Stats() Stats {
	u.countDrops()
	s := u.count.snapshot()
	s.GSO, s.GRO = u.body.offloads()
	return s
}

// countDrops takes over what the system has counted, which it forgets with the socket.
func (u *UDP) countDrops() {
	c := &u.count.receiveBuffer
	for now := socketDrops(u.conn); ; {
		have := c.Load()
		if now <= have || c.CompareAndSwap(have, now) {
			return
		}
	}
}
