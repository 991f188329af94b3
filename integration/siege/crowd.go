//go:build linux

package main

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
)

// A crowd is many members in this process, each an engine with a socket of its own, in the network of attackers. They know
// the relay and nobody else.
type crowd struct {
	f       *field
	members []*crowdMember
	heard   atomic.Int32 // packets that came to whom they were for
}

type crowdMember struct {
	n      int
	engine *engine.Engine
	device *crowdDevice
}

// crowd makes members 1 to n.
func (f *field) crowd(n int) *crowd {
	c := &crowd{f: f}
	for i := 1; i <= n; i++ {
		m := &crowdMember{n: i, device: &crowdDevice{out: make(chan []byte, 16), closed: make(chan struct{}), heard: &c.heard}}
		var err error
		m.engine, err = engine.New(engine.Config{
			PrivateKey: roster.Key(i), Device: m.device, Workers: 1,
			Addresses: []netip.Prefix{netip.PrefixFrom(roster.IPv4(i), roster.Bits4)},
		})
		if err != nil {
			f.s.Fatalf("member %d: %v", i, err)
		}
		f.s.Cleanup(func() { m.engine.Close() })
		c.members = append(c.members, m)
	}
	return c
}

// startAll has all members look for the relay.
func (c *crowd) startAll() {
	for _, m := range c.members {
		var udp *underlay.UDP
		var err error
		c.f.hostFoe.Do(func() {
			udp, err = underlay.ListenUDP(context.Background(), ":0", underlay.Config{Portable: true})
		})
		if err == nil {
			err = m.engine.AddCarrier(udp)
		}
		if err == nil {
			_, err = m.engine.AddRemote(engine.RemoteConfig{PublicKey: roster.Key(roster.Relay).Public(), Endpoint: victim.String(), Relay: true})
		}
		if err != nil {
			c.f.s.Fatalf("member %d: %v", m.n, err)
		}
		m.engine.Start()
	}
}

// sendAll has each member send one packet to each of some others, no two members to each other.
func (c *crowd) sendAll(each int) {
	for i, from := range c.members {
		for k := range each {
			to := c.members[(i+1+7*k)%len(c.members)]
			from.device.out <- datagram(roster.IPv4(from.n), roster.IPv4(to.n))
		}
	}
}

// await waits until all that was sent has come, and returns how many packets have not.
func (c *crowd) await(each int, limit time.Duration) (missing int) {
	all := each * len(c.members)
	for begin := time.Now(); int(c.heard.Load()) < all && time.Since(begin) < limit; {
		c.f.s.sleep(10 * time.Millisecond)
	}
	return max(0, all-int(c.heard.Load()))
}

// datagram is an empty UDP packet. Its checksums are left out: the devices here verify none.
func datagram(from, to netip.Addr) []byte {
	const headers = packet.IPv4HeaderLen + packet.UDPHeaderLen
	b := make([]byte, headers)
	b[0], b[3], b[8], b[9] = 0x45, headers, 64, packet.ProtoUDP
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	b[25] = packet.UDPHeaderLen
	return b
}

// crowdDevice gives what is put into out and counts what it is given.
type crowdDevice struct {
	out    chan []byte
	closed chan struct{}
	once   sync.Once
	heard  *atomic.Int32
}

// Read implements [engine.Device].
func (d *crowdDevice) Read(b *packet.Batch) error {
	b.Reset()
	select {
	case p := <-d.out:
		q := b.Add()
		q.Pieces = append(q.Pieces, p)
		return nil
	case <-d.closed:
		return net.ErrClosed
	}
}

// Inlet implements [engine.Device].
func (d *crowdDevice) Inlet() packet.Inlet { return &crowdInlet{heard: d.heard} }

// Close implements [engine.Device].
func (d *crowdDevice) Close() error { d.once.Do(func() { close(d.closed) }); return nil }

type crowdInlet struct {
	heard *atomic.Int32
	buf   []byte
}

func (i *crowdInlet) Lend(n int) []byte {
	if cap(i.buf) < n {
		i.buf = make([]byte, n)
	}
	return i.buf[:n]
}

func (i *crowdInlet) Deliver(n int, _ packet.Offload) error {
	if n > packet.IPv4HeaderLen && i.buf[9] == packet.ProtoUDP {
		i.heard.Add(1)
	}
	return nil
}
