package relay

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lab is a relay and its members on a network in memory, in fake time. A test reads as a dialogue:
//
//	inFakeTime(t, func(t *testing.T, l *lab) {
//		a, b := l.plan("a"), l.plan("b")
//		l.start()
//		a.send(b, "hello")
//		b.wants("hello")
//	})
type lab struct {
	t     *testing.T
	net   *underlay.Memory
	cfg   Config // of the relay: what a test wants otherwise, before start
	key   wire.PrivateKey
	addr  netip.AddrPort // of the relay
	relay *Relay
	wire  *underlay.Node                          // the relay's
	dress func(underlay.Carrier) underlay.Carrier // what the relay has of wire; nil: wire itself

	ids   uint16 // keys and addresses given out
	nodes []*node
	raws  []*raw
}

// A node is a member: an engine that knows only the relay, its device and its place on the network.
type node struct {
	lab     *lab
	name    string
	addr    netip.AddrPort // on the underlay
	ip, ip6 netip.Addr     // on the overlay
	key     wire.PrivateKey
	absent  bool // is not started with the others
	mtu     int  // of the device; 0: paths are not measured
	rekey   time.Duration
	random  io.Reader
	direct  []*node // members whose endpoint it knows

	engine *engine.Engine
	wire   *underlay.Node
	dev    *device
}

func inFakeTime(t *testing.T, f func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newLab(t)) })
}

func newLab(t *testing.T) *lab {
	l := &lab{
		t:    t,
		net:  underlay.NewMemory(underlay.MemoryConfig{Seed: 1, Coalesce: true}),
		addr: netip.MustParseAddrPort("198.51.100.1:5040"),
	}
	l.key[0], l.key[31] = 8, 0x60
	t.Cleanup(func() {
		for _, r := range l.raws {
			r.stop()
		}
		for _, n := range l.nodes {
			n.stop()
		}
		l.stopRelay()
	})
	return l
}

// identity gives out keys and addresses, none twice.
func (l *lab) identity() (k wire.PrivateKey, addr netip.AddrPort, ip, ip6 netip.Addr) {
	l.ids++
	high, low := byte(l.ids>>8), byte(l.ids)
	k[1], k[2], k[31] = low, high, 0x40
	addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2 + high, low}), 5040)
	ip = netip.AddrFrom4([4]byte{10, 9, high, low})
	ip6 = netip.AddrFrom16([16]byte{0: 0xfd, 3: 9, 14: high, 15: low})
	return k, addr, ip, ip6
}

// plan makes a member, which start starts.
func (l *lab) plan(name string) *node {
	n := &node{lab: l, name: name}
	n.key, n.addr, n.ip, n.ip6 = l.identity()
	l.nodes = append(l.nodes, n)
	l.cfg.Members = append(l.cfg.Members, Member{
		Name: name, PublicKey: n.key.Public(),
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(n.ip, 32), netip.PrefixFrom(n.ip6, 128)},
	})
	return n
}

// start starts the relay and the members, and waits until these are online.
func (l *lab) start() {
	l.t.Helper()
	l.startRelay()
	present := 0
	for _, n := range l.nodes {
		if !n.absent {
			n.start()
			present++
		}
	}
	advance(time.Second)
	if s := l.relay.Stats(); s.Online != present {
		l.t.Fatalf("%d members are online, want %d", s.Online, present)
	}
}

// startRelay makes the relay; after stopRelay it is a restart, with nothing remembered.
func (l *lab) startRelay() {
	l.t.Helper()
	cfg := l.cfg
	cfg.Engine.PrivateKey = l.key
	r, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.relay = r
	if l.wire, err = l.net.Attach(l.addr); err != nil {
		l.t.Fatal(err)
	}
	var c underlay.Carrier = l.wire
	if l.dress != nil {
		c = l.dress(c)
	}
	if err := r.AddCarrier(c); err != nil {
		l.t.Fatal(err)
	}
	r.Start()
}

func (l *lab) stopRelay() {
	if l.relay != nil {
		l.relay.Close()
		l.relay = nil
	}
}

// circuits is how many there are at the relay.
func (l *lab) circuits() int { synctest.Wait(); return l.relay.Stats().Circuits }

// wantDrops fails unless the relay's forwarders dropped n datagrams for that reason.
func (l *lab) wantDrops(reason string, n uint64) {
	l.t.Helper()
	synctest.Wait()
	if got := l.relay.Stats().Drops[reason]; got != n {
		l.t.Errorf("%d datagrams dropped for %q, want %d (%v)", got, reason, n, l.relay.Stats().Drops)
	}
}

// start makes the member's engine; after stop it is a restart, with nothing remembered.
func (n *node) start() {
	n.lab.t.Helper()
	n.dev = newDevice()
	e, err := engine.New(engine.Config{
		PrivateKey: n.key, Device: n.dev, MTU: n.mtu, RekeyAfter: n.rekey, Random: n.random,
		Addresses: []netip.Prefix{netip.PrefixFrom(n.ip, 16), netip.PrefixFrom(n.ip6, 64)},
	})
	if err != nil {
		n.lab.t.Fatal(err)
	}
	n.engine = e
	if _, err := e.AddRemote(engine.RemoteConfig{
		Name: "relay", PublicKey: n.lab.key.Public(), Endpoint: n.lab.addr.String(), Relay: true,
	}); err != nil {
		n.lab.t.Fatal(err)
	}
	for _, other := range n.direct {
		if _, err := e.AddRemote(engine.RemoteConfig{
			Name: other.name, PublicKey: other.key.Public(), Endpoint: other.addr.String(),
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(other.ip, 32), netip.PrefixFrom(other.ip6, 128)},
		}); err != nil {
			n.lab.t.Fatal(err)
		}
	}
	if n.wire, err = n.lab.net.Attach(n.addr); err != nil {
		n.lab.t.Fatal(err)
	}
	if err := e.AddCarrier(n.wire); err != nil {
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

// send gives n's device a UDP packet for other; send6 the same over IPv6.
func (n *node) send(other *node, text string)  { n.dev.in <- udpPacket(n.ip, other.ip, text) }
func (n *node) send6(other *node, text string) { n.dev.in <- udpPacket(n.ip6, other.ip6, text) }

// wants fails unless exactly these texts have come out of n's device, in order, once all is quiet.
func (n *node) wants(texts ...string) {
	n.lab.t.Helper()
	synctest.Wait()
	if got := n.dev.texts(); !slices.Equal(got, texts) {
		n.lab.t.Fatalf("%s received %q, want %q", n.name, got, texts)
	}
}

// wantsWithin fails unless text comes out of n's device in that time, and returns after how long it did.
func (n *node) wantsWithin(limit time.Duration, text string) time.Duration {
	n.lab.t.Helper()
	begin := time.Now()
	for {
		synctest.Wait()
		took := time.Since(begin)
		if slices.Contains(n.dev.texts(), text) {
			return took
		}
		if took >= limit {
			n.lab.t.Fatalf("%s did not receive %q within %v", n.name, text, limit)
		}
		time.Sleep(time.Millisecond)
	}
}

// status is how n sees other.
func (n *node) status(other *node) engine.RemoteStatus {
	synctest.Wait()
	if r := n.engine.Remote(other.key.Public()); r != nil {
		return r.Status()
	}
	return engine.RemoteStatus{}
}

// meet has a and b make their session, so that a test can begin with it.
func meet(a, b *node) {
	a.lab.t.Helper()
	a.send(b, "ping")
	b.wantsWithin(time.Second, "ping")
	b.send(a, "pong")
	a.wantsWithin(time.Second, "pong")
}

// wantsOneSession fails unless a and b have one session with each other, by the relay, and returns
// when it was made at a's side.
func wantsOneSession(a, b *node) time.Time {
	a.lab.t.Helper()
	sa, sb := a.status(b), b.status(a)
	if !sa.Connected || !sb.Connected || sa.Via != "relay" || sb.Via != "relay" {
		a.lab.t.Fatalf("no session by the relay: %+v, %+v", sa, sb)
	}
	return sa.Since
}

// advance lets time pass.
func advance(d time.Duration) { time.Sleep(d); synctest.Wait() }

// A raw is a member, or nobody, that speaks the protocol by hand: it can do what no engine would.
type raw struct {
	lab   *lab
	addr  netip.AddrPort
	key   wire.PrivateKey
	local *wire.Local
	wire  *underlay.Node

	sealer *wire.Sealer // of the session with the relay; nil: none
	opener *wire.Opener
	asked  wire.QuestionID

	mu       sync.Mutex
	received [][]byte
}

// member makes a raw that the relay will know; stranger one that it will not.
func (l *lab) member(name string) *raw {
	r := l.stranger()
	l.cfg.Members = append(l.cfg.Members, Member{Name: name, PublicKey: r.key.Public()})
	return r
}

func (l *lab) stranger() *raw {
	l.t.Helper()
	r := &raw{lab: l}
	r.key, r.addr, _, _ = l.identity()
	var err error
	if r.local, err = wire.NewLocal(r.key); err != nil {
		l.t.Fatal(err)
	}
	r.attach()
	l.raws = append(l.raws, r)
	return r
}

func (r *raw) attach() {
	var err error
	if r.wire, err = r.lab.net.Attach(r.addr); err != nil {
		r.lab.t.Fatal(err)
	}
	go r.receive(r.wire)
}

func (r *raw) receive(c underlay.Carrier) {
	ms := make([]underlay.Message, 8)
	for {
		n, err := c.Receive(ms)
		if err != nil {
			return
		}
		r.mu.Lock()
		for _, m := range ms[:n] {
			for b := m.Buf; len(b) > 0; b = b[min(m.Seg, len(b)):] {
				r.received = append(r.received, bytes.Clone(b[:min(m.Seg, len(b))]))
			}
		}
		r.mu.Unlock()
	}
}

func (r *raw) stop() { r.wire.Close() }

// send sends one datagram to the relay.
func (r *raw) send(b []byte) {
	r.lab.t.Helper()
	if err := r.wire.Send([]underlay.Message{{Buf: b, Seg: len(b), Addr: r.lab.addr}}); err != nil {
		r.lab.t.Fatal(err)
	}
}

// takes returns the datagrams of that kind that came since the last call, once all is quiet, and
// forgets the others.
func (r *raw) takes(kind wire.Kind) [][]byte {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var got [][]byte
	for _, b := range r.received {
		if wire.KindOf(b) == kind {
			got = append(got, b)
		}
	}
	r.received = nil
	return got
}

// connect makes a session with the relay, and reports whether the relay answered.
func (r *raw) connect() bool {
	r.lab.t.Helper()
	i, msg := r.initiation()
	r.takes(0)
	r.send(msg)
	responses := r.takes(wire.KindResponse)
	if len(responses) == 0 {
		return false
	}
	keys, err := i.Finish(responses[0])
	if err != nil {
		r.lab.t.Fatal(err)
	}
	r.sealer, r.opener = keys.NewSealer(), keys.NewOpener()
	r.keepalive()
	synctest.Wait()
	return true
}

func (r *raw) initiation() (*wire.Initiation, []byte) {
	r.lab.t.Helper()
	time.Sleep(time.Microsecond) // timestamps grow
	i, msg, err := r.local.Initiate(rand.Reader, r.lab.key.Public(), wire.PresharedKey{}, wire.Index(r.asked+1)<<8, time.Now(), nil)
	if err != nil {
		r.lab.t.Fatal(err)
	}
	return i, msg
}

// seal makes data of the session with the relay.
func (r *raw) seal(inner []byte) []byte {
	r.lab.t.Helper()
	counter, err := r.sealer.Reserve(1)
	if err != nil {
		r.lab.t.Fatal(err)
	}
	slot := make([]byte, len(inner)+wire.DataOverhead)
	copy(slot[wire.HeaderLen:], inner)
	r.sealer.Seal(slot, counter, 0, new(wire.Nonce))
	return slot
}

// keepalive shows the relay where we are.
func (r *raw) keepalive() { r.lab.t.Helper(); r.send(r.seal(nil)) }

func (r *raw) sendControl(m wire.Control) {
	r.lab.t.Helper()
	inner, err := m.Append(nil)
	if err != nil {
		r.lab.t.Fatal(err)
	}
	r.send(r.seal(inner))
}

// told returns the control messages that came from the relay since the last call.
func (r *raw) told() []wire.Control {
	r.lab.t.Helper()
	var all []wire.Control
	for _, b := range r.takes(wire.KindData) {
		inner, err := r.opener.Open(make([]byte, len(b)), b, new(wire.Nonce))
		if err != nil {
			r.lab.t.Fatal(err)
		}
		if wire.InnerOf(inner) != wire.InnerControl {
			continue
		}
		m, err := wire.ParseControl(inner)
		if err != nil {
			r.lab.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// lookup asks the directory.
func (r *raw) lookup(q wire.Lookup) wire.LookupReply {
	r.lab.t.Helper()
	r.asked++
	q.ID = r.asked
	r.sendControl(q)
	for _, m := range r.told() {
		if a, ok := m.(wire.LookupReply); ok && a.ID == q.ID {
			return a
		}
	}
	r.lab.t.Fatalf("no answer to %+v", q)
	return wire.LookupReply{}
}

// open asks for a circuit to the member with that key.
func (r *raw) open(to wire.PublicKey) wire.OpenCircuitReply {
	r.lab.t.Helper()
	r.asked++
	r.sendControl(wire.OpenCircuit{ID: r.asked, Remote: to})
	for _, m := range r.told() {
		if a, ok := m.(wire.OpenCircuitReply); ok && a.ID == r.asked {
			return a
		}
	}
	r.lab.t.Fatalf("no answer to OpenCircuit")
	return wire.OpenCircuitReply{}
}

// join opens a circuit between a and b, and returns the ids at their ends.
func join(a, b *raw) (ida, idb wire.CircuitID) {
	a.lab.t.Helper()
	b.told()
	answer := a.open(b.key.Public())
	if answer.Status != wire.CircuitOK {
		a.lab.t.Fatalf("circuit: %v", answer.Status)
	}
	for _, m := range b.told() {
		if o, ok := m.(wire.CircuitOffered); ok && o.Remote.Key == a.key.Public() {
			return answer.Circuit, o.Circuit
		}
	}
	a.lab.t.Fatal("the other end was not told of the circuit")
	return 0, 0
}

// circuitData is a datagram of circuit data that carries what looks like sealed data.
func circuitData(id wire.CircuitID, text string) []byte {
	b := make([]byte, wire.CircuitOverhead+wire.HeaderLen, wire.CircuitOverhead+wire.DataOverhead+len(text))
	wire.PutCircuit(b, id)
	b[wire.CircuitOverhead] = byte(wire.KindData)
	b = append(b, text...)
	return append(b, make([]byte, wire.TagLen)...)
}

// circuitText is the reverse of circuitData.
func circuitText(b []byte) (wire.CircuitID, string) {
	id, inner, ok := wire.ParseCircuit(b)
	if !ok || len(inner) < wire.DataOverhead {
		return 0, ""
	}
	return id, string(inner[wire.HeaderLen : len(inner)-wire.TagLen])
}

// wants fails unless r received exactly these texts by circuit id.
func (r *raw) wants(id wire.CircuitID, texts ...string) {
	r.lab.t.Helper()
	var got []string
	for _, b := range r.takes(wire.KindCircuit) {
		at, text := circuitText(b)
		if at != id {
			r.lab.t.Fatalf("received %q by circuit %v, want %v", text, at, id)
		}
		got = append(got, text)
	}
	if !slices.Equal(got, texts) {
		r.lab.t.Fatalf("received %q, want %q", got, texts)
	}
}

// wantsNotices fails unless r received exactly these circuit notices about id.
func (r *raw) wantsNotices(id wire.CircuitID, codes ...wire.CircuitCode) {
	r.lab.t.Helper()
	var got []wire.CircuitCode
	for _, b := range r.takes(wire.KindCircuitNotice) {
		code, about, _ := wire.ParseCircuitNotice(b)
		if about != id {
			r.lab.t.Fatalf("a notice about %v, want %v", about, id)
		}
		got = append(got, code)
	}
	if !slices.Equal(got, codes) {
		r.lab.t.Fatalf("notices %v, want %v", got, codes)
	}
}

// A device keeps what it is given and gives what the test puts in.
type device struct {
	in     chan *packet.Packet
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex
	out [][]byte
}

func newDevice() *device {
	return &device{in: make(chan *packet.Packet, 1024), closed: make(chan struct{})}
}

func (d *device) Read(b *packet.Batch) error {
	select {
	case <-d.closed:
		return net.ErrClosed
	case p := <-d.in:
		q := b.Add()
		q.Pieces = append(q.Pieces, p.Pieces...)
		return nil
	}
}

func (d *device) Inlet() packet.Inlet { return &inlet{d: d} }
func (d *device) Close() error        { d.once.Do(func() { close(d.closed) }); return nil }

type inlet struct {
	d   *device
	buf []byte
}

func (i *inlet) Lend(n int) []byte { i.buf = make([]byte, n); return i.buf }
func (i *inlet) Deliver(n int, _ packet.Offload) error {
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	i.d.out = append(i.d.out, i.buf[:n])
	return nil
}

// texts is what the UDP packets delivered since the last call held; other packets are named "ICMP".
func (d *device) texts() (texts []string) {
	d.mu.Lock()
	out := d.out
	d.out = nil
	d.mu.Unlock()
	for _, b := range out {
		h, err := packet.Parse(b)
		switch {
		case err != nil:
			texts = append(texts, err.Error())
		case h.Proto == packet.ProtoUDP:
			texts = append(texts, string(b[h.Transport+packet.UDPHeaderLen:]))
		default:
			texts = append(texts, "ICMP")
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
	return &packet.Packet{Pieces: [][]byte{b}}
}

// A tap remembers whether any datagram on the network held a text.
type tap struct {
	mu   sync.Mutex
	seen []string
}

func (l *lab) tap() *tap {
	p := &tap{}
	l.net.SetTap(func(_, _ netip.AddrPort, d []byte) []byte {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen = append(p.seen, string(d))
		return d
	})
	return p
}

func (p *tap) saw(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.seen, func(d string) bool { return strings.Contains(d, text) })
}

// A lockedReader may be read by many goroutines, as an engine's source of chance is.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(b)
}
