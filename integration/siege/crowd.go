//go:build linux

package main

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
)

// A crowd is many members in this process, each an engine with a socket and an address of its own, in the network of attackers.
// They know the relay and nobody else.
type crowd struct {
	f       *field
	members []*crowdMember

	mu    sync.Mutex
	heard map[pair]bool
}

// pair is who has heard whom.
type pair struct{ from, to netip.Addr }

type crowdMember struct {
	n      int
	engine *engine.Engine
	device *crowdDevice
}

// crowd makes members 1 to n.
func (f *field) crowd(n int) *crowd {
	c := &crowd{f: f, heard: make(map[pair]bool)}
	for i := 1; i <= n; i++ {
		m := &crowdMember{n: i, device: &crowdDevice{out: make(chan []byte, 16), closed: make(chan struct{}), crowd: c}}
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

// crowdAddress is where member n is, on the underlay: all of everywhere is local to the crowd's host.
func crowdAddress(n int) string {
	a := everywhere.Addr().As4()
	a[2], a[3] = byte(n>>8), byte(n)
	return netip.AddrFrom4(a).String()
}

// startAll has all members look for the relay.
func (c *crowd) startAll() {
	for _, m := range c.members {
		var udp *underlay.UDP
		var err error
		c.f.hostFoe.Do(func() {
			udp, err = underlay.ListenUDP(context.Background(), crowdAddress(m.n)+":0", underlay.Config{Portable: true})
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

// talk has each member send to some others, no two to each other, until all have heard what was for them or the time is over.
// Like a dial it sends again what is not heard: who is not there yet is reported down. It returns how many are missing.
func (c *crowd) talk(each int, limit time.Duration) (missing int) {
	begin := time.Now()
	for {
		missing = 0
		for i, from := range c.members {
			for k := range each {
				p := pair{roster.IPv4(from.n), roster.IPv4(c.members[(i+1+7*k)%len(c.members)].n)}
				if c.has(p) {
					continue
				}
				missing++
				select {
				case from.device.out <- datagram(p):
				default: // it has not taken the last ones
				}
			}
		}
		if missing == 0 || time.Since(begin) > limit {
			return missing
		}
		c.f.s.sleep(500 * time.Millisecond)
	}
}

func (c *crowd) has(p pair) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard[p]
}

func (c *crowd) hears(p pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard[p] = true
}

// datagram is an empty UDP packet. Its checksums are left out: the devices here verify none.
func datagram(p pair) []byte {
	const headers = packet.IPv4HeaderLen + packet.UDPHeaderLen
	b := make([]byte, headers)
	b[0], b[3], b[8], b[9] = 0x45, headers, 64, packet.ProtoUDP
	copy(b[12:], p.from.AsSlice())
	copy(b[16:], p.to.AsSlice())
	b[25] = packet.UDPHeaderLen
	return b
}

// crowdDevice gives what is put into out and notes what it is given.
type crowdDevice struct {
	out    chan []byte
	closed chan struct{}
	once   sync.Once
	crowd  *crowd
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
func (d *crowdDevice) Inlet() packet.Inlet { return &crowdInlet{crowd: d.crowd} }

// Close implements [engine.Device].
func (d *crowdDevice) Close() error { d.once.Do(func() { close(d.closed) }); return nil }

type crowdInlet struct {
	crowd *crowd
	buf   []byte
}

func (i *crowdInlet) Lend(n int) []byte {
	if cap(i.buf) < n {
		i.buf = make([]byte, n)
	}
	return i.buf[:n]
}

func (i *crowdInlet) Deliver(n int, _ packet.Offload) error {
	if h, err := packet.Parse(i.buf[:n]); err == nil && h.Proto == packet.ProtoUDP {
		i.crowd.hears(pair{h.Src, h.Dst})
	}
	return nil
}
