package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// cutBound is cutAll with every segment of at most bound bytes.
func cutBound(t testing.TB, p *Packet, partial bool, bound int) [][]byte {
	t.Helper()
	var c Cutter
	if err := c.Start(p, partial); err != nil {
		t.Fatal(err)
	}
	if !c.Bound(p, bound) {
		t.Fatalf("%d bytes cannot be cut to %d", p.Len(), bound)
	}
	return rest(t, &c)
}

// What is cut smaller is what a super-packet with smaller segments would have been.
func TestBoundCutsAsIfSegmentsWereSmaller(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 400 {
		s := segment{
			v6: i%2 == 0, srcPort: 9, seq: r.Uint32(), flags: []byte{0x10, 0x18, 0x11, 0x98}[r.IntN(4)],
			options: r.IntN(11) * 4, payload: payload(r, 1+r.IntN(60000)), id: uint16(r.Uint32()), ttl: 64,
		}
		size := 1 + r.IntN(9000)
		p := s.super(size)
		bound := p.Header + 1 + r.IntN(9000)
		for _, partial := range []bool{true, false} {
			got := cutBound(t, p, partial, bound)
			want := cutAll(t, s.super(min(size, bound-p.Header)), partial)
			equalPackets(t, got, want)
		}
	}
}

// A single packet with a partial checksum is cut as the super-packet of one segment that it might have been.
func TestBoundCutsASinglePacket(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 200 {
		s := segment{
			v6: i%2 == 0, srcPort: 9, seq: r.Uint32(), flags: []byte{0x10, 0x18, 0x11, 0x98}[r.IntN(4)],
			options: r.IntN(11) * 4, payload: payload(r, 1+r.IntN(9000)), id: uint16(r.Uint32()), ttl: 64,
		}
		super := s.super(len(s.payload))
		single := &Packet{Pieces: super.Pieces, Offload: Offload{Checksum: ChecksumPartial, Transport: super.Transport}}
		if at := super.Header + r.IntN(len(s.payload)); i%3 == 0 { // the payload in two pieces
			single.Pieces = [][]byte{super.Pieces[0][:at], super.Pieces[0][at:]}
		}
		bound := super.Header + 1 + r.IntN(3000)
		equalPackets(t, cutBound(t, single, true, bound), cutAll(t, s.super(min(len(s.payload), bound-super.Header)), true))
	}
}

func equalPackets(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d segments, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("segment %d:\n got %x\nwant %x", i, got[i][:min(80, len(got[i]))], want[i][:min(80, len(want[i]))])
		}
	}
}

// What cannot be cut passes as it is, and Bound says so.
func TestBoundLeavesWhatCannotBeCut(t *testing.T) {
	tcp := func(v6 bool, flags byte) *Packet {
		p := segment{v6: v6, flags: flags, options: 12, payload: make([]byte, 3000)}.super(3000)
		p.Header, p.Segment = 0, 0
		return p
	}
	change := func(p *Packet, f func(p *Packet)) *Packet { f(p); return p }
	for name, p := range map[string]*Packet{
		"complete checksum": change(tcp(false, tcpACK), func(p *Packet) { p.Checksum = ChecksumComplete }),
		"verified checksum": change(tcp(true, tcpACK), func(p *Packet) { p.Checksum = ChecksumVerified }),
		"SYN":               tcp(false, tcpSYN),
		"RST":               tcp(true, tcpACK|tcpRST),
		"URG":               tcp(false, tcpACK|tcpURG),
		"UDP":               change(tcp(false, tcpACK), func(p *Packet) { p.Pieces[0][9] = ProtoUDP }),
		"extension header":  change(tcp(true, tcpACK), func(p *Packet) { p.Pieces[0][6] = 0 }),
		"first fragment":    change(tcp(false, tcpACK), func(p *Packet) { p.Pieces[0][6] = 0x20 }),
		"transport astray":  change(tcp(false, tcpACK), func(p *Packet) { p.Transport = 24 }),
		"TCP header short":  change(tcp(false, tcpACK), func(p *Packet) { p.Pieces[0][32] = 0x40 }),
		"headers in pieces": change(tcp(false, tcpACK), func(p *Packet) { p.Pieces = [][]byte{p.Pieces[0][:30], p.Pieces[0][30:]} }),
		"length field off":  change(tcp(false, tcpACK), func(p *Packet) { p.Pieces[0][3]++ }),
		"short first piece": {Pieces: [][]byte{{0x45}, make([]byte, 3000)}, Offload: Offload{Checksum: ChecksumPartial, Transport: 20}},
	} {
		var c Cutter
		if err := c.Start(p, true); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.Bound(p, 1300) {
			t.Errorf("%s: was cut", name)
			continue
		}
		out := make([]byte, c.Size())
		c.Next(out)
		if want := bytes.Join(p.Pieces, nil); !bytes.Equal(out, want) || c.Size() != 0 {
			t.Errorf("%s: did not pass as it is", name)
		}
	}
	var c Cutter
	super := segment{flags: tcpACK, payload: make([]byte, 3000)}.super(1000)
	if c.Start(super, true); c.Bound(super, 40) {
		t.Error("a bound that leaves no room for payload was accepted")
	}
	small := tcp(false, tcpSYN)
	if c.Start(small, true); !c.Bound(small, small.Len()) {
		t.Error("what fits is said not to")
	}
}

func FuzzBound(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		p := segment{v6: v6, flags: 0x18, options: 12, payload: make([]byte, 900)}.super(400)
		f.Add(p.Pieces[0], uint16(p.Transport), uint16(p.Header), uint16(p.Segment), uint16(300))
		f.Add(p.Pieces[0], uint16(p.Transport), uint16(0), uint16(0), uint16(300))
	}
	f.Fuzz(func(t *testing.T, b []byte, transport, header, segment, bound uint16) {
		p := &Packet{Pieces: [][]byte{b}, Offload: Offload{
			Checksum: ChecksumPartial, Transport: int(transport), Header: int(header), Segment: int(segment),
		}}
		var c Cutter
		if c.Start(p, true) != nil || !c.Bound(p, int(bound)) {
			return
		}
		for c.Size() > 0 {
			if c.Size() > int(bound) {
				t.Fatalf("a segment of %d bytes, want at most %d", c.Size(), bound)
			}
			c.Next(make([]byte, c.Size()))
		}
	})
}

func TestTooBig(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		whole := segment{v6: v6, flags: tcpACK, payload: make([]byte, 3000)}.bytes(false)
		head := whole[:80]
		from := netip.MustParseAddr("10.9.0.1")
		least := MinMTUIPv4
		if v6 {
			from, least = netip.MustParseAddr("fd00::1"), MinMTUIPv6
		}
		h, err := ParseHead(head, len(whole))
		if err != nil {
			t.Fatal(err)
		}
		for _, mtu := range []int{1300, 9000, 100} {
			msg := AppendTooBig(nil, head, &h, mtu, from)
			mh, err := Parse(msg)
			if err != nil || mh.Src != from || mh.Dst != h.Src || !bytes.HasSuffix(msg, head) {
				t.Fatalf("IPv6 %v: %v, from %v to %v", v6, err, mh.Src, mh.Dst)
			}
			icmp := msg[mh.Transport:]
			said, sum := int(binary.BigEndian.Uint32(icmp[4:])), uint16(0)
			kind := [2]byte{3, 4}
			if v6 {
				kind = [2]byte{2, 0}
				sum = slowSum(append(bytes.Clone(msg[8:40]), 0, ProtoICMPv6, byte(len(icmp)>>8), byte(len(icmp))), 0)
			}
			if [2]byte(icmp) != kind || said != max(mtu, least) || slowSum(icmp, sum) != 0xffff {
				t.Errorf("IPv6 %v, MTU %d: %x", v6, mtu, icmp[:8])
			}
			if again := AppendTooBig(nil, msg, &mh, 600, from); again != nil {
				t.Error("an ICMP error was answered with another")
			}
		}
	}
	b := segment{flags: tcpACK, payload: make([]byte, 3000)}.bytes(false)
	b[6] = 0 // may be fragmented
	h, _ := Parse(b)
	if msg := AppendTooBig(nil, b, &h, 1300, netip.MustParseAddr("10.9.0.1")); msg != nil {
		t.Error("the sender of a packet that may be fragmented was told")
	}
}
