package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A script is a carrier whose messages a test gives and takes by hand, to see how they are cut and
// joined, or to measure the forwarder alone. It needs no fake time.
type script struct {
	in     chan []underlay.Message
	out    chan underlay.Message // copies of what was sent
	closed chan struct{}
	once   sync.Once

	// When a test calls the forwarder's Receive itself, while the engine waits on in.
	direct  []underlay.Message
	discard bool
	sends   int

	probes atomic.Int64 // datagrams that were to arrive whole
}

func newScript() *script {
	return &script{in: make(chan []underlay.Message), out: make(chan underlay.Message, 4096), closed: make(chan struct{})}
}

var errScriptEnded = errors.New("the script ended")

// Receive gives the messages of direct, if there are some, and then ends; else those of in.
func (s *script) Receive(ms []underlay.Message) (int, error) {
	if s.discard {
		if len(s.direct) == 0 {
			return 0, errScriptEnded
		}
		n := copy(ms, s.direct)
		s.direct = s.direct[n:]
		return n, nil
	}
	for {
		select {
		case got := <-s.in:
			if len(got) > 0 {
				return copy(ms, got), nil
			}
		case <-s.closed:
			return 0, net.ErrClosed
		}
	}
}

// park returns when the engine's goroutine waits in Receive. The forwarder and the script are the
// test's from then on.
func (s *script) park() { s.in <- nil }

func (s *script) Send(ms []underlay.Message) error {
	if s.discard {
		s.sends += len(ms)
		return nil
	}
	for _, m := range ms {
		m.Buf = bytes.Clone(m.Buf)
		select {
		case s.out <- m:
		case <-s.closed:
			return net.ErrClosed
		}
	}
	return nil
}

func (s *script) Probe(m underlay.Message) error {
	s.probes.Add(1)
	return s.Send([]underlay.Message{m})
}

func (s *script) LocalAddr() netip.AddrPort { return netip.MustParseAddrPort("198.51.100.1:5040") }
func (s *script) Close() error              { s.once.Do(func() { close(s.closed) }); return nil }

// next is the next message that was sent.
func (s *script) next(tb testing.TB) underlay.Message {
	tb.Helper()
	select {
	case m := <-s.out:
		return m
	case <-time.After(time.Minute): // it failed; nothing waits for this
		tb.Fatal("nothing was sent")
		return underlay.Message{}
	}
}

// give has the relay receive these messages at once.
func (s *script) give(ms ...underlay.Message) { s.in <- ms }

// A line is how a client's messages come to a relay and back.
type line interface {
	give(...underlay.Message)
	next(testing.TB) underlay.Message
}

// A client is a member on a line.
type client struct {
	tb     testing.TB
	key    wire.PrivateKey
	at     line
	addr   netip.AddrPort // of the client; on a socket, of the relay
	sealer *wire.Sealer
	opener *wire.Opener
}

// scripted makes a relay with n members that have sessions, the i-th by carriers[i % len(carriers)].
func scripted(tb testing.TB, n int, limits Limits, carriers ...*script) (*Relay, []*client) {
	tb.Helper()
	cfg := Config{Limits: limits}
	cfg.Engine.PrivateKey = wire.PrivateKey{1: 200, 31: 0x40}
	cfg.Engine.RekeyAfter = 24 * time.Hour // clients do not renew their sessions, and a fuzzer takes longer than those last
	var clients []*client
	for i := range n {
		c := &client{
			tb: tb, key: wire.PrivateKey{1: byte(i + 1), 31: 0x40}, at: carriers[i%len(carriers)],
			addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 5040),
		}
		cfg.Members = append(cfg.Members, Member{Name: fmt.Sprint("m", i), PublicKey: c.key.Public()})
		clients = append(clients, c)
	}
	r, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	for _, s := range carriers {
		if err := r.AddCarrier(s); err != nil {
			tb.Fatal(err)
		}
	}
	r.Start()
	for _, c := range clients {
		c.connect(r)
	}
	return r, clients
}

func (c *client) message(datagrams ...[]byte) underlay.Message {
	return underlay.Message{Buf: bytes.Join(datagrams, nil), Seg: len(datagrams[0]), Addr: c.addr}
}

func (c *client) connect(r *Relay) {
	c.tb.Helper()
	local, err := wire.NewLocal(c.key)
	if err != nil {
		c.tb.Fatal(err)
	}
	i, msg, err := local.Initiate(rand.Reader, r.Engine().PublicKey(), wire.PresharedKey{}, 1, time.Now(), nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.at.give(c.message(msg))
	keys, err := i.Finish(c.at.next(c.tb).Buf)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.sealer, c.opener = keys.NewSealer(), keys.NewOpener()
	c.at.give(c.message(c.probe())) // its answer shows that the session is in use
	if _, ok := c.open(c.at.next(c.tb).Buf).(wire.ProbeReply); !ok {
		c.tb.Fatal("no answer to a probe")
	}
}

func (c *client) probe() []byte { return c.seal(wire.Probe{}) }

func (c *client) seal(m wire.Control) []byte {
	c.tb.Helper()
	inner, err := m.Append(nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	counter, err := c.sealer.Reserve(1)
	if err != nil {
		c.tb.Fatal(err)
	}
	slot := make([]byte, len(inner)+wire.DataOverhead)
	copy(slot[wire.HeaderLen:], inner)
	c.sealer.Seal(slot, counter, 0, new(wire.Nonce))
	return slot
}

func (c *client) open(b []byte) wire.Control {
	c.tb.Helper()
	inner, err := c.opener.Open(make([]byte, len(b)), b, new(wire.Nonce))
	if err != nil {
		c.tb.Fatal(err)
	}
	m, err := wire.ParseControl(inner)
	if err != nil {
		c.tb.Fatal(err)
	}
	return m
}

// circuitTo opens a circuit, and returns the ids at both ends.
func (c *client) circuitTo(other *client) (mine, theirs wire.CircuitID) {
	c.tb.Helper()
	c.at.give(c.message(c.seal(wire.OpenCircuit{Remote: other.key.Public()})))
	offer, ok := other.open(other.at.next(c.tb).Buf).(wire.CircuitOffered)
	if !ok {
		c.tb.Fatal("no circuit was offered")
	}
	answer, ok := c.open(c.at.next(c.tb).Buf).(wire.OpenCircuitReply)
	if !ok || answer.Status != wire.CircuitOK {
		c.tb.Fatalf("no circuit: %+v", answer)
	}
	return answer.Circuit, offer.Circuit
}

// forwarderOf is the forwarder a client's datagrams come by.
func forwarderOf(r *Relay, c *client) *forwarder {
	carrier, _, _ := r.directory.byKey[c.key.Public()].remote.Address()
	return carrier.(*forwarder)
}
