package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// segment is a TCP segment as a test writes it down.
type segment struct {
	v6         bool
	srcPort    uint16
	seq        uint32
	flags      byte
	options    int // bytes, a multiple of 4
	payload    []byte
	id         uint16
	ttl, class byte
}

// bytes is the oracle for the cutter: it builds one packet field by field.
func (s segment) bytes(partial bool) []byte {
	tcpLen := TCPHeaderLen + s.options + len(s.payload)
	var b []byte
	ip := IPv4HeaderLen
	if s.v6 {
		ip = IPv6HeaderLen
		b = make([]byte, ip+tcpLen)
		b[0], b[1] = 0x60|s.class>>4, s.class<<4
		binary.BigEndian.PutUint16(b[4:], uint16(tcpLen))
		b[6], b[7] = ProtoTCP, s.ttl
		copy(b[8:], netip.MustParseAddr("fd00::2").AsSlice())
		copy(b[24:], netip.MustParseAddr("fd00::3").AsSlice())
	} else {
		b = make([]byte, ip+tcpLen)
		b[0], b[1] = 0x45, s.class
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], s.id)
		b[6] = 0x40
		b[8], b[9] = s.ttl, ProtoTCP
		copy(b[12:], []byte{10, 9, 0, 2, 10, 9, 0, 3})
		binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:20], 0))
	}
	t := b[ip:]
	binary.BigEndian.PutUint16(t, s.srcPort)
	binary.BigEndian.PutUint16(t[2:], 80)
	binary.BigEndian.PutUint32(t[4:], s.seq)
	binary.BigEndian.PutUint32(t[8:], 77)
	t[12] = byte((TCPHeaderLen + s.options) / 4 << 4)
	t[13] = s.flags
	binary.BigEndian.PutUint16(t[14:], 512)
	for i := range s.options {
		t[20+i] = 1 // no operation
	}
	copy(t[20+s.options:], s.payload)
	var pseudo []byte
	if s.v6 {
		pseudo = append(pseudo, b[8:40]...)
	} else {
		pseudo = append(pseudo, b[12:20]...)
	}
	pseudo = append(pseudo, 0, ProtoTCP, byte(tcpLen>>8), byte(tcpLen))
	sum := slowSum(pseudo, 0)
	if !partial {
		sum = ^slowSum(t, sum)
	}
	binary.BigEndian.PutUint16(t[16:], sum)
	return b
}

// slowSum is the Internet checksum, two bytes at a time (RFC 1071).
func slowSum(b []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for i := 0; i < len(b); i += 2 {
		if i+1 < len(b) {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		} else {
			sum += uint32(b[i]) << 8
		}
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// super makes the super-packet of which cut are the segments.
func (s segment) super(size int) *Packet {
	b := s.bytes(true)
	ip := IPv4HeaderLen
	if s.v6 {
		ip = IPv6HeaderLen
	}
	return &Packet{Pieces: [][]byte{b}, Offload: Offload{
		Checksum: ChecksumPartial, Transport: ip, Header: len(b) - len(s.payload), Segment: size,
	}}
}

// cut is the oracle: the segments s is cut into.
func (s segment) cut(size int) []segment {
	var out []segment
	for rest := s.payload; len(rest) > 0; {
		n := min(size, len(rest))
		one := s
		one.payload = rest[:n]
		if rest = rest[n:]; len(rest) > 0 {
			one.flags &^= tcpFIN | tcpPSH
		}
		if len(out) > 0 {
			one.flags &^= tcpCWR
		}
		out = append(out, one)
		s.seq += uint32(n)
		s.id++
	}
	return out
}

func payload(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func cutAll(t testing.TB, p *Packet, partial bool) [][]byte {
	t.Helper()
	var c Cutter
	if err := c.Start(p, partial); err != nil {
		t.Fatal(err)
	}
	return rest(t, &c)
}

// rest takes all segments out of a cutter that was started.
func rest(t testing.TB, c *Cutter) [][]byte {
	t.Helper()
	want := c.Segments()
	var out [][]byte
	for c.Size() > 0 {
		b := make([]byte, c.Size())
		c.Next(b)
		out = append(out, b)
	}
	if len(out) != want {
		t.Fatalf("%d segments, Segments said %d", len(out), want)
	}
	return out
}

func TestCutterAgreesWithOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		s := segment{
			v6: i%2 == 0, srcPort: uint16(r.Uint32()), seq: r.Uint32(), flags: []byte{0x10, 0x18, 0x11, 0x98}[r.IntN(4)],
			options: r.IntN(11) * 4, payload: payload(r, 1+r.IntN(60000)), id: uint16(r.Uint32()), ttl: 64,
		}
		size := 1 + r.IntN(9000)
		p := s.super(size)
		// The payload in pieces, the first holding the headers and perhaps some of it.
		for whole := p.Pieces[0]; len(p.Pieces) < 5; {
			last := len(p.Pieces) - 1
			keep := min(len(p.Pieces[last]), p.Header+r.IntN(3000))
			p.Pieces = append(p.Pieces[:last], whole[:keep], whole[keep:])
			whole = whole[keep:]
		}
		for _, partial := range []bool{true, false} {
			got := cutAll(t, p, partial)
			want := s.cut(size)
			if len(got) != len(want) {
				t.Fatalf("%d segments, want %d", len(got), len(want))
			}
			for j, w := range want {
				if !bytes.Equal(got[j], w.bytes(partial)) {
					t.Fatalf("case %d partial %v segment %d:\n got %x\nwant %x", i, partial, j, got[j][:80], w.bytes(partial)[:80])
				}
			}
		}
	}
}

func TestCutterPassesOrdinaryPacketsAsTheyAre(t *testing.T) {
	p := &Packet{Pieces: [][]byte{{1, 2}, {}, {3}}}
	got := cutAll(t, p, true)
	if len(got) != 1 || !bytes.Equal(got[0], []byte{1, 2, 3}) {
		t.Fatalf("got %v", got)
	}
}

func TestCutterRefusesMetadataThatDoesNotFit(t *testing.T) {
	s := segment{flags: 0x10, payload: make([]byte, 3000)}
	for name, spoil := range map[string]func(*Packet){
		"header beyond first piece": func(p *Packet) { p.Pieces = [][]byte{p.Pieces[0][:30], p.Pieces[0][30:]} },
		"header is not the TCP's":   func(p *Packet) { p.Header += 4 },
		"header longer than packet": func(p *Packet) { p.Header = 4000 },
		"no payload":                func(p *Packet) { p.Pieces = [][]byte{p.Pieces[0][:40]} },
		"transport too early":       func(p *Packet) { p.Transport = 0 },
		"IPv6 extension headers":    func(p *Packet) { p.Pieces[0][0] = 0x60 },
		"empty":                     func(p *Packet) { p.Pieces = nil },
	} {
		p := s.super(1000)
		spoil(p)
		if err := new(Cutter).Start(p, true); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// recorder is an inlet that keeps what it is given.
type recorder struct {
	buf  []byte
	got  []Packet
	lent bool
}

func (r *recorder) Lend(n int) []byte { r.buf, r.lent = make([]byte, n), true; return r.buf }
func (r *recorder) Deliver(n int, o Offload) error {
	if !r.lent {
		panic("Deliver without Lend")
	}
	r.lent = false
	r.got = append(r.got, Packet{Pieces: [][]byte{r.buf[:n]}, Offload: o})
	return nil
}

// feed runs one packet through c as the engine does, and reports whether it was delivered or kept.
func feed(c *Coalescer, pkt []byte, partial bool, more int) bool {
	copy(c.Room(len(pkt), more), pkt)
	if c.Join(partial) {
		return true
	}
	h, err := Parse(c.Settle())
	if err != nil {
		c.Discard()
		return false
	}
	return c.Begin(&h, partial) == nil
}

// TestCoalescedPacketsCutToWhatCameIn: whatever comes in, what goes out is the same packets in the
// same order, once super-packets are cut and checksums completed.
func TestCoalescedPacketsCutToWhatCameIn(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		var in [][]byte
		var partials []bool
		for range 1 + r.IntN(6) {
			s := segment{
				v6: r.IntN(2) == 0, srcPort: uint16(r.IntN(2)), seq: uint32(r.IntN(3) * 1400), flags: []byte{0x10, 0x18, 0x11, 0x02}[r.IntN(4)],
				options: r.IntN(2) * 12, payload: payload(r, 1+r.IntN(20000)), ttl: 64,
			}
			partial := r.IntN(2) == 0
			for _, one := range s.cut(1 + r.IntN(1400)) {
				switch r.IntN(40) {
				case 0:
					continue // lost
				case 1:
					one.ttl = 63
				case 2:
					one.class = 4
				}
				in = append(in, one.bytes(partial))
				partials = append(partials, partial)
			}
		}
		rec := &recorder{}
		c := NewCoalescer(rec, func(err error) { t.Fatal(err) })
		var want [][]byte
		for i, b := range in {
			if r.IntN(30) == 0 { // one that does not open: its place is scribbled over
				copy(c.Room(len(b), 0), payload(r, len(b)))
				c.Discard()
				continue
			}
			corrupt := !partials[i] && r.IntN(30) == 0
			if corrupt {
				b[len(b)-1] ^= 1
			}
			if !feed(c, b, partials[i], r.IntN(60000)) {
				t.Fatalf("seed %d: refused packet %d", seed, i)
			}
			if r.IntN(50) == 0 {
				c.Flush()
			}
			w := bytes.Clone(b)
			if partials[i] {
				h, _ := Parse(w)
				Complete(w, &h)
			}
			want = append(want, w)
		}
		c.Flush()
		var got [][]byte
		for _, p := range rec.got {
			h, err := Parse(p.Pieces[0])
			if err != nil {
				t.Fatalf("seed %d: delivered %v", seed, err)
			}
			if p.Checksum == ChecksumVerified && !Verify(p.Pieces[0], &h) {
				t.Fatalf("seed %d: called verified, and is not", seed)
			}
			for _, b := range cutAll(t, &p, false) {
				if p.Checksum == ChecksumPartial && !p.Super() {
					Complete(b, &h)
				}
				got = append(got, b)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d packets out, %d in", seed, len(got), len(want))
		}
		for i := range got {
			// Cutting numbers IPv4 packets anew from the first.
			if got[i][0]>>4 == 4 {
				copy(got[i][4:6], want[i][4:6])
				sumIPv4(got[i][:20])
			}
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("seed %d packet %d:\n got %x\nwant %x", seed, i, got[i][:60], want[i][:60])
			}
		}
	}
}

func TestCoalescerMakesOneOfARun(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := segment{v6: v6, flags: 0x18, options: 12, payload: bytes.Repeat([]byte("abcdefg"), 8000), ttl: 64}
		rec := &recorder{}
		c := NewCoalescer(rec, nil)
		for _, one := range s.cut(1348) {
			feed(c, one.bytes(true), true, 60000)
		}
		if len(rec.got) != 1 { // PSH on the last ends it without a flush
			t.Fatalf("IPv6 %v: %d packets delivered, want one", v6, len(rec.got))
		}
		want := s.super(1348)
		if got := rec.got[0]; got.Offload != want.Offload || !bytes.Equal(got.Pieces[0], want.Pieces[0]) {
			t.Fatalf("IPv6 %v: offload %+v, want %+v, bytes equal %v", v6, got.Offload, want.Offload, bytes.Equal(got.Pieces[0], want.Pieces[0]))
		}
	}
}

func TestPartialChecksumOnlyWhereThereIsOne(t *testing.T) {
	icmp := segment{flags: 0x10}.bytes(true)
	icmp[9] = ProtoICMP
	fragment := segment{flags: 0x10}.bytes(true)
	fragment[6] = 0x20
	for name, pkt := range map[string][]byte{"ICMP": icmp, "fragment": fragment} {
		rec := &recorder{}
		if feed(NewCoalescer(rec, nil), pkt, true, 0) || len(rec.got) != 0 {
			t.Errorf("%s with a partial checksum was accepted", name)
		}
	}
}

func TestParse(t *testing.T) {
	good4 := segment{flags: 0x10, payload: []byte("x")}.bytes(false)
	good6 := segment{v6: true, flags: 0x10, payload: []byte("x")}.bytes(false)
	change := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	mapped := bytes.Clone(good6)
	copy(mapped[8:], netip.MustParseAddr("::ffff:10.9.0.3").AsSlice())
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"IPv4":                          {good4, nil},
		"IPv6":                          {good6, nil},
		"empty":                         {nil, ErrShort},
		"IPv4 cut in its header":        {good4[:19], ErrShort},
		"IPv6 cut in its header":        {good6[:39], ErrShort},
		"version 5":                     {change(good4, 0, 0x55), ErrVersion},
		"header length below 20":        {change(good4, 0, 0x44), ErrLength},
		"header length beyond packet":   {change(good4[:20], 0, 0x4f), ErrLength},
		"IPv4 total length too long":    {change(good4, 2, 0xff), ErrLength},
		"IPv4 bytes behind the packet":  {append(bytes.Clone(good4), 0), ErrLength},
		"IPv6 payload length too short": {change(good6, 4, 0, 1), ErrLength},
		"IPv4-mapped source in IPv6":    {mapped, ErrAddress},
	} {
		if _, err := Parse(c.b); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	h, _ := Parse(good6)
	if h.Src != netip.MustParseAddr("fd00::2") || h.Dst != netip.MustParseAddr("fd00::3") || h.Proto != ProtoTCP || h.Transport != 40 {
		t.Errorf("IPv6 parsed as %+v", h)
	}
	if !Verify(good4, &Header{Proto: ProtoTCP, Transport: 20}) || Verify(change(good4, 40, 'y'), &Header{Proto: ProtoTCP, Transport: 20}) {
		t.Error("Verify does not tell a right checksum from a wrong one")
	}
}

func TestUnreachable(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		pkt := segment{v6: v6, flags: tcpSYN}.bytes(false)
		from := netip.MustParseAddr("10.9.0.1")
		if v6 {
			from = netip.MustParseAddr("fd00::1")
		}
		h, _ := Parse(pkt)
		msg := AppendUnreachable(nil, pkt, &h, HostDown, from)
		mh, err := Parse(msg)
		if err != nil {
			t.Fatal(err)
		}
		if mh.Src != from || mh.Dst != h.Src || !bytes.HasSuffix(msg, pkt) {
			t.Errorf("IPv6 %v: from %v to %v", v6, mh.Src, mh.Dst)
		}
		sum := uint16(0)
		if v6 {
			n := len(msg) - 40
			sum = slowSum(append(bytes.Clone(msg[8:40]), 0, ProtoICMPv6, byte(n>>8), byte(n)), 0)
		} else if slowSum(msg[:20], 0) != 0xffff {
			t.Error("IPv4 header checksum is wrong")
		}
		if slowSum(msg[mh.Transport:], sum) != 0xffff {
			t.Errorf("IPv6 %v: ICMP checksum is wrong", v6)
		}
		if again := AppendUnreachable(nil, msg, &mh, HostDown, from); again != nil {
			t.Error("an ICMP error was answered with another")
		}
	}
}

func FuzzCoalesceAndCut(f *testing.F) {
	f.Add(segment{flags: 0x10, payload: make([]byte, 600)}.bytes(false), uint8(0))
	f.Add(segment{v6: true, flags: 0x18, payload: make([]byte, 600)}.bytes(true), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		if len(b) == 0 || len(b) > MaxLen {
			return
		}
		rec := &recorder{}
		c := NewCoalescer(rec, nil)
		n := 0
		next := bytes.Clone(b)
		for range 3 {
			if feed(c, next, how&1 != 0, 5000) {
				n++
			}
			if h, err := Parse(next); err == nil { // and then what would follow it
				if hdr, ok := startsRun(next, &h); ok {
					at := h.Transport + 4
					binary.BigEndian.PutUint32(next[at:], binary.BigEndian.Uint32(next[at:])+uint32(len(next)-hdr))
					if how&1 == 0 {
						Complete(next, &h)
					}
				}
			}
		}
		c.Flush()
		got := 0
		for _, p := range rec.got {
			for _, b := range cutAll(t, &p, how&2 != 0) {
				if _, err := Parse(b); err != nil {
					t.Fatalf("a packet came out that is none: %v", err)
				}
				got++
			}
		}
		if got != n {
			t.Fatalf("%d packets went in, %d came out", n, got)
		}
	})
}

func BenchmarkCut(b *testing.B) {
	s := segment{flags: 0x10, payload: make([]byte, 45*1348), options: 12}
	p := s.super(1348)
	dst := make([]byte, 1400)
	var c Cutter
	b.ReportAllocs()
	for b.Loop() {
		c.Start(p, true)
		for c.Size() > 0 {
			c.Next(dst[:c.Size()])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/45, "ns/segment")
}

// still is an inlet that only lends.
type still struct{ buf [65535]byte }

func (s *still) Lend(n int) []byte        { return s.buf[:n] }
func (*still) Deliver(int, Offload) error { return nil }

func BenchmarkCoalesce(b *testing.B) {
	s := segment{flags: 0x10, payload: make([]byte, 45*1348), options: 12}
	var segs [][]byte
	for _, one := range s.cut(1348) {
		segs = append(segs, one.bytes(true))
	}
	c := NewCoalescer(&still{}, nil)
	b.ReportAllocs()
	for b.Loop() {
		for _, seg := range segs {
			feed(c, seg, true, 60000)
		}
		c.Flush()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/45, "ns/segment")
}
