package engine

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Goroutines that work on their batches for different times hand them on in the order they took them.
func TestTurnstileKeepsOrder(t *testing.T) {
	const workers, batches = 5, 20_000
	gate := newTurnstile()
	taken, next := 0, 0 // taken is guarded by the gate, next by the order
	working, together := 0, 0
	var mu sync.Mutex
	var g sync.WaitGroup
	for w := range workers {
		chance := rand.New(rand.NewPCG(1, uint64(w)))
		turn := gate.newTurn()
		g.Go(func() {
			for {
				turn.begin()
				mine := taken
				if taken++; mine >= batches {
					turn.end()
					return
				}
				if chance.IntN(4) > 0 {
					turn.share()
				}
				mu.Lock()
				working++
				together = max(together, working)
				mu.Unlock()
				for range chance.IntN(2000) {
					chance.Uint64()
				}
				runtime.Gosched() // so that others work meanwhile on a single processor too
				mu.Lock()
				working--
				mu.Unlock()
				if chance.IntN(2) > 0 {
					turn.wait()
				}
				if turn.wait(); mine != next {
					t.Errorf("batch %d was handed on in place of %d", mine, next)
				}
				next++
				turn.end()
			}
		})
	}
	g.Wait()
	if next != batches {
		t.Errorf("%d of %d batches were handed on", next, batches)
	}
	if together < 2 {
		t.Error("no two goroutines worked at the same time")
	}
}

// What has to wait for a session does so in the order in which it was read, whichever worker comes to it first.
func TestWorkersHoldInTheOrderOfReading(t *testing.T) {
	for name, meanwhile := range map[string]func(a, b *node){
		"no session yet":     func(a, b *node) {},
		"a session comes up": func(a, b *node) { b.send(a, "hello"); a.wants("hello") },
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				a, b := l.node("a"), l.node("b")
				a.knows(b, at(b))
				b.knows(a, at(a))
				gate := newTurnstile()
				var workers [2]*outbound
				for i := range workers {
					workers[i] = newOutbound(a.engine, messagesPerSend)
					workers[i].turn = gate.newTurn()
					workers[i].turn.begin()
					workers[i].turn.share()
				}
				work := func(i int, texts ...string) {
					now := time.Now()
					for _, text := range texts {
						workers[i].route(udpPacket(a.ip, b.ip, text), now)
					}
					workers[i].flush()
					workers[i].settle(now)
					workers[i].turn.end()
				}
				go work(1, "three", "four")
				synctest.Wait()
				meanwhile(a, b)
				work(0, "one", "two")
				advance(time.Second)
				b.wants("one", "two", "three", "four")
			})
		})
	}
}

// Nor does anything overtake what waited until it was known whose it is.
func TestPacketsOfUnknownOwnersGoFirst(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, relay := l.node("a"), l.node("b"), l.plan("relay") // which is not there
		if _, err := a.engine.AddRemote(RemoteConfig{Name: "relay", PublicKey: relay.key.Public(), Endpoint: at(relay), Relay: true}); err != nil {
			t.Fatal(err)
		}
		a.send(b, "one")
		a.send(b, "two")
		synctest.Wait()
		m := wire.Member{Key: b.key.Public(), Name: "b", Prefixes: []netip.Prefix{netip.PrefixFrom(b.ip, 32)}}
		a.engine.learn(m)
		a.send(b, "three")
		synctest.Wait()
		a.engine.lookups.answered(b.ip, &m, nil)
		b.knows(a, at(a))
		b.send(a, "hello")
		a.wants("hello")
		b.wants("one", "two", "three")
	})
}

// With several workers in each direction the packets of a remote arrive in the order they were given, whole and once.
func TestWorkersKeepTheOrderOfPackets(t *testing.T) {
	const packets = 30_000
	ends := [2]*crowded{newCrowded(packets), newCrowded(packets)}
	engines := [2]*Engine{}
	ips := [2]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")}
	keys := [2]wire.PrivateKey{{8, 31: 0x40}, {16, 31: 0x40}}
	endpoint := ""
	for i := range engines {
		e, err := New(Config{PrivateKey: keys[i], Device: ends[i], Workers: 4})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		c, err := underlay.ListenUDP(t.Context(), "127.0.0.1:0", underlay.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.AddCarrier(c); err != nil {
			t.Fatal(err)
		}
		if _, err := e.AddRemote(RemoteConfig{
			PublicKey: keys[1-i].Public(), Endpoint: endpoint, AllowedIPs: []netip.Prefix{netip.PrefixFrom(ips[1-i], 32)},
		}); err != nil {
			t.Fatal(err)
		}
		e.Start()
		endpoint = c.LocalAddr().String()
		engines[i] = e
	}
	<-engines[1].Ready()
	for i, end := range ends {
		go end.offer(packets, ips[i], ips[1-i], ends[1-i])
	}
	for _, end := range ends {
		<-end.all
	}
	for i, end := range ends {
		engines[i].Close() // only then is it known that nobody touches the device any more
		if len(end.outlets) < 2 || len(end.inlets) <= shelfSlots {
			t.Errorf("end %d: read by %d outlets, delivered by %d inlets: want more than one worker's", i, len(end.outlets), len(end.inlets))
		}
		for _, fault := range end.faults {
			t.Errorf("end %d: %s; %v", i, fault, engines[i].Stats())
		}
	}
}

// A crowded device has batches to read all the time, and expects numbered packets in their order. Nothing in it is
// guarded: that outlets are read in turn, and packets delivered so, is what the race detector sees to.
type crowded struct {
	packets int
	offered chan []byte
	outlets map[*crowdedOutlet]bool // that gave a batch

	room   chan struct{}          // of what was offered and not delivered
	inlets map[*crowdedInlet]bool // by which something was delivered
	next   uint64                 // the number of the next packet
	faults []string
	all    chan struct{}
}

const (
	crowdedBatch  = 16
	crowdedOnWay  = 4 * crowdedBatch // a socket's buffer holds these
	crowdedLength = 1300
)

func newCrowded(packets int) *crowded {
	return &crowded{
		packets: packets, offered: make(chan []byte), outlets: make(map[*crowdedOutlet]bool),
		room: make(chan struct{}, crowdedOnWay), inlets: make(map[*crowdedInlet]bool), all: make(chan struct{}),
	}
}

// offer makes the packets that the other end is to get, no faster than it gets them.
func (d *crowded) offer(n int, from, to netip.Addr, other *crowded) {
	for i := range n {
		other.room <- struct{}{}
		b := make([]byte, crowdedLength)
		b[0], b[8], b[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(b[2:], crowdedLength)
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint64(b[28:], uint64(i))
		d.offered <- b
	}
	close(d.offered)
}

func (d *crowded) Read(b *packet.Batch) error { panic("read past the outlets") }
func (d *crowded) Outlet() packet.Outlet      { return &crowdedOutlet{d} }
func (d *crowded) Inlet() packet.Inlet        { return &crowdedInlet{d: d} }
func (d *crowded) Close() error               { return nil }

type crowdedOutlet struct{ d *crowded }

func (o *crowdedOutlet) Read(b *packet.Batch) error {
	for range crowdedBatch {
		pkt, ok := <-o.d.offered
		if !ok {
			break
		}
		p := b.Add()
		p.Pieces = append(p.Pieces, pkt)
	}
	if len(b.Packets) == 0 {
		return net.ErrClosed
	}
	o.d.outlets[o] = true
	return nil
}

type crowdedInlet struct {
	d   *crowded
	buf [packet.MaxLen]byte
}

func (in *crowdedInlet) Lend(n int) []byte { return in.buf[:n] }

func (in *crowdedInlet) Deliver(n int, _ packet.Offload) error {
	d := in.d
	d.inlets[in] = true
	got := binary.BigEndian.Uint64(in.buf[28:])
	if got != d.next || n != crowdedLength {
		d.faults = append(d.faults, fmt.Sprintf("packet %d of %d bytes in place of packet %d", got, n, d.next))
	}
	for ; d.next <= got; d.next++ {
		<-d.room
	}
	if d.next == uint64(d.packets) {
		close(d.all)
	}
	return nil
}
