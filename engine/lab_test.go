package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A lab is a few engines on a network in memory, in fake time. A test reads as a dialogue:
//
//	l := newLab(t)
//	a, b := l.node("a"), l.node("b")
//	a.knows(b, at(b))
//	a.send(b, "hello")
//	b.wants("hello")
type lab struct {
	t     *testing.T
	net   *underlay.Memory
	nodes []*node
	seed  byte // of the nodes' own chance
}

// chance is randomness that is the same in every run.
type chance struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func (c *chance) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.Read(b)
}

// A node is one engine with its device and its place on the network.
type node struct {
	lab    *lab
	name   string
	addr   netip.AddrPort // on the underlay
	ip     netip.Addr     // on the overlay
	key    wire.PrivateKey
	psk    wire.PresharedKey
	engine *Engine
	wire   *underlay.Node
	dev    *device
	rekey  time.Duration
	mtu    int // of the device; 0: paths are not measured
	random io.Reader
	ahead  time.Duration // of the wall clock, by how much it was set

	log     *slog.Logger                            // nil: none
	carrier func(underlay.Carrier) underlay.Carrier // what the engine is given for wire; nil: wire
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, net: underlay.NewMemory(underlay.MemoryConfig{Seed: 1, Coalesce: true})}
	t.Cleanup(func() {
		for _, n := range l.nodes {
			n.stop()
		}
	})
	return l
}

// inFakeTime runs f in a bubble of fake time.
func inFakeTime(t *testing.T, f func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		f(t, l)
	})
}

// plan gives a node its keys and addresses and does not start it.
func (l *lab) plan(name string) *node {
	i := byte(len(l.nodes) + 1)
	n := &node{
		lab: l, name: name,
		addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 5040),
		ip:   netip.AddrFrom4([4]byte{10, 9, 0, i}),
	}
	n.key[0], n.key[31] = i*8, 0x40
	n.random = &chance{r: rand.NewChaCha8([32]byte{i, l.seed})}
	l.nodes = append(l.nodes, n)
	return n
}

func (l *lab) node(name string) *node {
	n := l.plan(name)
	n.start()
	return n
}

// start makes the node's engine; after stop it is a restart, with nothing remembered.
func (n *node) start() {
	n.lab.t.Helper()
	n.dev = newDevice()
	e, err := New(Config{
		PrivateKey: n.key, Device: n.dev, MTU: n.mtu, PresharedKey: n.psk, RekeyAfter: n.rekey, Random: n.random, Logger: n.log,
		WallClock: func() time.Time { return time.Now().Add(n.ahead) },
		Addresses: []netip.Prefix{netip.PrefixFrom(n.ip, 24)},
	})
	if err != nil {
		n.lab.t.Fatal(err)
	}
	n.engine = e
	if n.wire, err = n.lab.net.Attach(n.addr); err != nil {
		n.lab.t.Fatal(err)
	}
	var c underlay.Carrier = n.wire
	if n.carrier != nil {
		c = n.carrier(c)
	}
	if err := e.AddCarrier(c); err != nil {
		n.lab.t.Fatal(err)
	}
	e.Start()
}

func (n *node) stop() {
	if n.engine != nil {
		n.engine.Close()
		n.engine = nil
	}
}

// knows adds other as a remote; endpoint may be empty.
func (n *node) knows(other *node, endpoint string) *Remote {
	n.lab.t.Helper()
	r, err := n.engine.AddRemote(RemoteConfig{
		Name: other.name, PublicKey: other.key.Public(), Endpoint: endpoint,
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(other.ip, 32)},
	})
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return r
}

func at(n *node) string { return n.addr.String() }

// renew has n begin a handshake with other.
func (n *node) renew(other *node) {
	r := n.remote(other)
	r.mu.Lock()
	r.startHandshake(time.Now())
	r.mu.Unlock()
	r.wake()
	synctest.Wait()
}

// holdBack takes the first data that n sends off the network.
func (l *lab) holdBack(n *node) *[]byte {
	kept := new([]byte)
	l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
		if from == n.addr && wire.KindOf(d) == wire.KindData && *kept == nil {
			*kept = append([]byte(nil), d...)
			return nil
		}
		return d
	})
	return kept
}

// remote is how n sees other.
func (n *node) remote(other *node) *Remote { return n.engine.Remote(other.key.Public()) }

// send gives n's device a UDP packet for other.
func (n *node) send(other *node, text string) { n.dev.in <- udpPacket(n.ip, other.ip, text) }

// wants fails unless exactly these texts have come out of n's device, in order, once all is quiet.
func (n *node) wants(texts ...string) {
	n.lab.t.Helper()
	synctest.Wait()
	if got := n.dev.texts(); !slices.Equal(got, texts) {
		n.lab.t.Fatalf("%s received %q, want %q", n.name, got, texts)
	}
}

// drops is how often n has dropped something for that reason, once all is quiet.
func (n *node) drops(d Drop) uint64 { synctest.Wait(); return n.engine.Dropped(d) }

// advance lets time pass.
func advance(d time.Duration) { time.Sleep(d); synctest.Wait() }

// sessionWith is n's current session with other, nil for none.
func (n *node) sessionWith(other *node) *session {
	r := n.remote(other)
	if r == nil {
		return nil
	}
	return r.current.Load()
}

// held counts the sessions n has keys of, and the former ones of which it keeps the index.
func (n *node) held() (sessions, former int) {
	x := &n.engine.indexes
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, s := range x.sessions {
		if s.opener != nil {
			sessions++
		} else {
			former++
		}
	}
	return sessions, former
}

// wantsOneSession fails unless a and b seal by the same session.
func wantsOneSession(a, b *node) {
	a.lab.t.Helper()
	synctest.Wait()
	sa, sb := a.sessionWith(b), b.sessionWith(a)
	if sa == nil || sb == nil {
		a.lab.t.Fatalf("sessions: %v %v", sa, sb)
	}
	if sa.local != sb.peer || sb.local != sa.peer {
		a.lab.t.Fatalf("%s seals by %v/%v, %s by %v/%v: not one session", a.name, sa.local, sa.peer, b.name, sb.local, sb.peer)
	}
}

// A device keeps what it is given and gives what the test puts in.
type device struct {
	in     chan *packet.Packet
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex
	out []packet.Packet
}

func newDevice() *device {
	return &device{in: make(chan *packet.Packet, 1024), closed: make(chan struct{})}
}

func (d *device) Read(b *packet.Batch) error {
	take := func(p *packet.Packet) {
		q := b.Add()
		q.Pieces = append(q.Pieces, p.Pieces...)
		q.Offload = p.Offload
	}
	select {
	case <-d.closed: // also when there are packets
		return net.ErrClosed
	default:
	}
	select {
	case <-d.closed:
		return net.ErrClosed
	case p := <-d.in:
		take(p)
	}
	for len(b.Packets) < 16 {
		select {
		case p := <-d.in:
			take(p)
		default:
			return nil
		}
	}
	return nil
}

func (d *device) Inlet() packet.Inlet { return &inlet{d: d} }
func (d *device) Close() error        { d.once.Do(func() { close(d.closed) }); return nil }

type inlet struct {
	d   *device
	buf []byte
}

func (i *inlet) Lend(n int) []byte { i.buf = make([]byte, n); return i.buf }
func (i *inlet) Deliver(n int, o packet.Offload) error {
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	i.d.out = append(i.d.out, packet.Packet{Pieces: [][]byte{i.buf[:n]}, Offload: o})
	return nil
}

// take empties the device's list of what was delivered to it.
func (d *device) take() []packet.Packet {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.out
	d.out = nil
	return out
}

// texts is what the UDP packets delivered since the last call held.
func (d *device) texts() []string {
	var texts []string
	for _, p := range d.take() {
		b := p.Pieces[0]
		h, err := packet.Parse(b)
		switch {
		case err != nil:
			texts = append(texts, err.Error())
		case h.Proto == packet.ProtoUDP:
			texts = append(texts, string(b[h.Transport+packet.UDPHeaderLen:]))
		default:
			texts = append(texts, fmt.Sprintf("protocol %d type %d code %d", h.Proto, b[h.Transport], b[h.Transport+1]))
		}
	}
	return texts
}

func udpPacket(src, dst netip.Addr, text string) *packet.Packet {
	ip := packet.IPv4HeaderLen
	if src.Is6() {
		ip = packet.IPv6HeaderLen
	}
	b := make([]byte, ip+packet.UDPHeaderLen, ip+packet.UDPHeaderLen+len(text))
	b = append(b, text...)
	if src.Is4() {
		b[0], b[8], b[9] = 0x45, 64, packet.ProtoUDP
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
	} else {
		b[0], b[6], b[7] = 0x60, packet.ProtoUDP, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ip))
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
	}
	binary.BigEndian.PutUint16(b[ip:], 1000)
	binary.BigEndian.PutUint16(b[ip+2:], 2000)
	binary.BigEndian.PutUint16(b[ip+4:], uint16(len(b)-ip))
	h, err := packet.Parse(b)
	if err != nil {
		panic(err)
	}
	packet.Complete(b, &h)
	return &packet.Packet{Pieces: [][]byte{bytes.Clone(b)}}
}
