package tun

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/adit-overlay/adit/packet"
)

// A sample is an IP packet under construction, with complete checksums in the end.
type sample struct {
	v6        bool
	ihl       int // bytes of the IPv4 header
	extension int // bytes of IPv6 extension headers, a multiple of 8
	proto     uint8
	tcpOption int
	payload   int
	flags     byte
}

func (s sample) transport() int {
	if s.v6 {
		return 40 + s.extension
	}
	return max(s.ihl, 20)
}

func (s sample) header() int {
	if s.proto == packet.ProtoUDP {
		return s.transport() + 8
	}
	return s.transport() + 20 + s.tcpOption
}

// bytes returns the packet with the checksum field as the kernel leaves it: the sum of the
// pseudo-header.
func (s sample) bytes() []byte {
	b := make([]byte, s.header()+s.payload)
	t := s.transport()
	if s.v6 {
		b[0] = 0x60
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		b[6], b[7] = s.proto, 64
		if s.extension > 0 {
			b[6] = 60 // destination options
			b[40], b[41] = s.proto, byte(s.extension/8-1)
			b[42], b[43] = 1, byte(s.extension-4)
		}
		for i := 8; i < 40; i++ {
			b[i] = byte(i * 7)
		}
	} else {
		b[0] = 0x40 | byte(t/4)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[8], b[9] = 64, s.proto
		copy(b[12:], []byte{10, 9, 0, 2, 10, 9, 0, 1})
	}
	binary.BigEndian.PutUint32(b[t:], 0x13881389) // ports
	at := t + tcpChecksum
	if s.proto == packet.ProtoUDP {
		at = t + udpChecksum
		binary.BigEndian.PutUint16(b[t+4:], uint16(len(b)-t))
	} else {
		binary.BigEndian.PutUint32(b[t+4:], 1000)
		b[t+12] = byte((20 + s.tcpOption) / 4 << 4)
		b[t+13] = s.flags
	}
	for i := s.header(); i < len(b); i++ {
		b[i] = byte(i * i >> 3)
	}
	binary.BigEndian.PutUint16(b[at:], uint16(oracleSum(b, s.proto, nil)))
	return b
}

// oracleSum adds up the pseudo-header of b, and covered, one 16-bit word after the other.
func oracleSum(b []byte, proto uint8, covered []byte) uint32 {
	var words []byte
	n := 0
	if b[0]>>4 == 4 {
		words = append(words, b[12:20]...)
		n = len(b) - int(b[0]&15)*4
	} else {
		words = append(words, b[8:40]...)
		n = len(b) - 40
		if b[6] == 60 {
			n -= int(b[41])*8 + 8
		}
	}
	words = append(words, 0, proto, byte(n>>8), byte(n))
	words = append(words, covered...)
	if len(words)%2 == 1 {
		words = append(words, 0)
	}
	sum := uint32(0)
	for i := 0; i < len(words); i += 2 {
		sum += uint32(words[i])<<8 | uint32(words[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

// complete reports whether the transport checksum of b is right.
func (s sample) complete(b []byte) bool {
	return oracleSum(b, s.proto, b[s.transport():]) == 0xffff
}

func udpPacket(t *testing.T) []byte {
	t.Helper()
	s := sample{proto: packet.ProtoUDP, payload: 33}
	b := s.bytes()
	complete(b, s.transport(), s.transport()+udpChecksum)
	if !s.complete(b) {
		t.Fatal("the sample is wrong")
	}
	return b
}

func TestHeaderBytes(t *testing.T) {
	h := virtioHeader{flags: 1, gsoType: 4, headerLen: 0x1122, gsoSize: 0x3344, checksumStart: 0x5566, checksumOffset: 0x7788}
	var b [virtioLen]byte
	h.put(b[:])
	if got := readHeader(b[:]); got != h {
		t.Errorf("read back %+v", got)
	}
	if b[0] != 1 || b[1] != 4 || binary.NativeEndian.Uint16(b[2:]) != 0x1122 || binary.NativeEndian.Uint16(b[8:]) != 0x7788 {
		t.Errorf("bytes % x", b)
	}
}

var (
	tcp4     = sample{proto: packet.ProtoTCP, tcpOption: 12, payload: 4000}
	tcp4opts = sample{proto: packet.ProtoTCP, ihl: 28, payload: 4000}
	tcp6     = sample{v6: true, proto: packet.ProtoTCP, tcpOption: 12, payload: 4000}
	tcp6ext  = sample{v6: true, extension: 16, proto: packet.ProtoTCP, tcpOption: 12, payload: 4000}
	udp4     = sample{proto: packet.ProtoUDP, payload: 101}
	udp6     = sample{v6: true, proto: packet.ProtoUDP, payload: 101}
	udp6ext  = sample{v6: true, extension: 8, proto: packet.ProtoUDP, payload: 101}
)

func TestDecode(t *testing.T) {
	type change func(h *virtioHeader, ip []byte)
	super := func(s sample, t uint8) virtioHeader {
		return virtioHeader{needsChecksum, t, uint16(s.header()), 1348, uint16(s.transport()), tcpChecksum}
	}
	partial := func(s sample, offset uint16) virtioHeader {
		return virtioHeader{flags: needsChecksum, checksumStart: uint16(s.transport()), checksumOffset: offset}
	}
	isSuper := func(s sample) packet.Offload {
		return packet.Offload{Checksum: packet.ChecksumPartial, Transport: s.transport(), Header: s.header(), Segment: 1348}
	}
	isPartial := func(s sample) packet.Offload {
		return packet.Offload{Checksum: packet.ChecksumPartial, Transport: s.transport()}
	}
	for _, tt := range []struct {
		name   string
		s      sample
		h      virtioHeader
		change change
		want   packet.Offload
		err    error
		// What the checksum field must be in the end.
		completed bool
		elsewhere bool // completed, but not at the sample's own place
	}{
		{name: "nothing known", s: udp4},
		{name: "verified", s: udp4, h: virtioHeader{flags: dataValid}, want: packet.Offload{Checksum: packet.ChecksumVerified}},
		{name: "partial TCP", s: tcp4, h: partial(tcp4, 16), want: isPartial(tcp4)},
		{name: "partial TCP with IPv4 options", s: tcp4opts, h: partial(tcp4opts, 16), want: isPartial(tcp4opts)},
		{name: "partial TCP over IPv6", s: tcp6, h: partial(tcp6, 16), want: isPartial(tcp6)},
		{name: "partial UDP", s: udp4, h: partial(udp4, 6), want: isPartial(udp4)},
		{name: "partial UDP over IPv6", s: udp6, h: partial(udp6, 6), want: isPartial(udp6)},
		{name: "partial behind an extension header", s: udp6ext, h: partial(udp6ext, 6), completed: true},
		{name: "partial at the usual place but over less", s: tcp4, h: virtioHeader{flags: needsChecksum, checksumStart: 24, checksumOffset: 12}, elsewhere: true},
		{name: "partial of UDP where TCP has it", s: udp4, h: partial(udp4, 16), elsewhere: true},
		{name: "partial beyond the packet", s: udp4, h: virtioHeader{flags: needsChecksum, checksumStart: 127, checksumOffset: 1}, err: errChecksumPlace},
		{name: "partial far beyond the packet", s: udp4, h: virtioHeader{flags: needsChecksum, checksumStart: 65535, checksumOffset: 65535}, err: errChecksumPlace},

		{name: "super", s: tcp4, h: super(tcp4, gsoTCPv4), want: isSuper(tcp4)},
		{name: "super with IPv4 options", s: tcp4opts, h: super(tcp4opts, gsoTCPv4), want: isSuper(tcp4opts)},
		{name: "super over IPv6", s: tcp6, h: super(tcp6, gsoTCPv6), want: isSuper(tcp6)},
		{name: "super with ECN", s: tcp4, h: super(tcp4, gsoTCPv4|gsoECN), want: isSuper(tcp4)},
		{name: "header length is a hint", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.headerLen = 200 }, want: isSuper(tcp4)},
		{name: "super of one segment", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.gsoSize = 4000 }, want: isPartial(tcp4)},
		{name: "super with extension header", s: tcp6ext, h: super(tcp6ext, gsoTCPv6), want: isSuper(tcp6ext), err: errExtension},
		{name: "super of one segment with extension header", s: tcp6ext, h: super(tcp6ext, gsoTCPv6), change: func(h *virtioHeader, _ []byte) { h.gsoSize = 4000 }, completed: true},
		{name: "verified super", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, ip []byte) {
			h.flags, h.checksumStart, h.checksumOffset = dataValid, 0, 0
			complete(ip, tcp4.transport(), tcp4.transport()+tcpChecksum)
		}, want: isSuper(tcp4)},

		{name: "super nobody verified", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.flags = 0 }, err: errGSOHeader},
		{name: "super with extension header of segments too small", s: tcp6ext, h: super(tcp6ext, gsoTCPv6), change: func(h *virtioHeader, ip []byte) {
			// An extension header over most of the packet, and segments of one byte.
			ip[41] = 255
			h.checksumStart, h.gsoSize = 40+2048, 1
			ip[40+2048+12] = 0x50
		}, err: errGSOHeader},
		{name: "super of UDP", s: udp4, h: super(udp4, gsoTCPv4), err: errGSOHeader},
		{name: "super of the other family", s: tcp6, h: super(tcp6, gsoTCPv4), err: errGSOType},
		{name: "UDP fragmentation offload", s: udp4, h: super(udp4, 3), err: errGSOType},
		{name: "UDP segmentation offload", s: udp4, h: super(udp4, 5), err: errGSOType},
		{name: "ECN of nothing", s: tcp4, h: super(tcp4, gsoECN), err: errGSOType},
		{name: "super of segments of nothing", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.gsoSize = 0 }, err: errGSOHeader},
		{name: "headers beyond the packet", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.headerLen = 5000 }, err: errGSOHeader},
		{name: "TCP header too short", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(_ *virtioHeader, ip []byte) { ip[32] = 0x40 }, err: errGSOHeader},
		{name: "TCP header beyond the packet", s: sample{proto: packet.ProtoTCP, payload: 10}, h: super(sample{proto: packet.ProtoTCP}, gsoTCPv4), change: func(_ *virtioHeader, ip []byte) { ip[32] = 0xf0 }, err: errGSOHeader},
		{name: "checksum within the IP header", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.checksumStart = 16 }, err: errGSOHeader},
		{name: "checksum within IPv4 options", s: tcp4opts, h: super(tcp4opts, gsoTCPv4), change: func(h *virtioHeader, ip []byte) {
			h.checksumStart = 20
			ip[32] = 0x50 // a TCP header length, seen from there
		}, err: errGSOHeader},
		{name: "headers between IPv4 and TCP", s: udp4, h: super(udp4, gsoTCPv4), change: func(h *virtioHeader, ip []byte) {
			h.checksumStart, h.gsoSize = 28, 10
			ip[40] = 0x50
		}, err: errGSOHeader},
		{name: "checksum of UDP", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.checksumOffset = 6 }, err: errGSOHeader},
		{name: "checksum beyond the IPv4 header", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(h *virtioHeader, _ []byte) { h.checksumStart = 28 }, err: errGSOHeader},
		{name: "length field disagrees", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(_ *virtioHeader, ip []byte) { ip[3]++ }, err: errGSOHeader},
		{name: "super of fragments", s: tcp4, h: super(tcp4, gsoTCPv4), change: func(_ *virtioHeader, ip []byte) { ip[6] = 0x20 }, err: errGSOHeader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ip := tt.s.bytes()
			pseudo := tt.s.bytes()
			if tt.change != nil {
				tt.change(&tt.h, ip)
			}
			o, err := decode(tt.h, ip)
			if err != tt.err {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil && err != errExtension {
				return
			}
			if o != tt.want {
				t.Errorf("%+v, want %+v", o, tt.want)
			}
			if tt.completed && !tt.s.complete(ip) {
				t.Error("checksum is not complete")
			}
			if !tt.completed && !tt.elsewhere && string(ip[tt.s.transport():]) != string(pseudo[tt.s.transport():]) {
				t.Error("the packet was changed")
			}
		})
	}
}

func TestCompletedChecksumIsNeverZero(t *testing.T) {
	s := sample{proto: packet.ProtoUDP, payload: 2}
	b := s.bytes()
	seen := false
	for v := range uint32(0x10000) {
		binary.BigEndian.PutUint16(b[28:], uint16(v))
		c := append([]byte(nil), b...)
		complete(c, 20, 26)
		if c[26] == 0 && c[27] == 0 {
			t.Fatalf("payload %#x: checksum is zero", v)
		}
		seen = seen || c[26] == 0xff && c[27] == 0xff
	}
	if !seen {
		t.Error("no payload had that sum")
	}
}

func TestEncode(t *testing.T) {
	partial := packet.ChecksumPartial
	for _, tt := range []struct {
		name string
		s    sample
		o    packet.Offload
		want virtioHeader
		err  error
	}{
		{name: "ordinary", s: udp4},
		{name: "verified", s: udp4, o: packet.Offload{Checksum: packet.ChecksumVerified}, want: virtioHeader{flags: dataValid}},
		{name: "partial TCP", s: tcp4, o: packet.Offload{Checksum: partial, Transport: 20}, want: virtioHeader{1, 0, 0, 0, 20, 16}},
		{name: "partial UDP", s: udp4, o: packet.Offload{Checksum: partial, Transport: 20}, want: virtioHeader{1, 0, 0, 0, 20, 6}},
		{name: "partial UDP over IPv6", s: udp6, o: packet.Offload{Checksum: partial, Transport: 40}, want: virtioHeader{1, 0, 0, 0, 40, 6}},
		{name: "super", s: tcp4, o: packet.Offload{Checksum: partial, Transport: 20, Header: 52, Segment: 1348}, want: virtioHeader{1, gsoTCPv4, 52, 1348, 20, 16}},
		{name: "super over IPv6", s: tcp6, o: packet.Offload{Checksum: partial, Transport: 40, Header: 72, Segment: 1328}, want: virtioHeader{1, gsoTCPv6, 72, 1328, 40, 16}},
		{name: "super with CWR", s: sample{proto: packet.ProtoTCP, payload: 4000, flags: 0x90}, o: packet.Offload{Checksum: partial, Transport: 20, Header: 40, Segment: 1348}, want: virtioHeader{1, gsoTCPv4 | gsoECN, 40, 1348, 20, 16}},
		{name: "super of one segment", s: tcp4, o: packet.Offload{Checksum: partial, Transport: 20, Header: 52, Segment: 4000}, want: virtioHeader{1, 0, 52, 0, 20, 16}},

		{name: "partial of neither TCP nor UDP", s: sample{proto: 47, payload: 50}, o: packet.Offload{Checksum: partial, Transport: 20}, err: ErrOffload},
		{name: "partial without a place", s: tcp4, o: packet.Offload{Checksum: partial}, err: ErrOffload},
		{name: "partial beyond the packet", s: udp4, o: packet.Offload{Checksum: partial, Transport: 124}, err: ErrOffload},
		{name: "super with a complete checksum", s: tcp4, o: packet.Offload{Transport: 20, Header: 52, Segment: 1348}, err: ErrOffload},
		{name: "super with no TCP header", s: tcp4, o: packet.Offload{Checksum: partial, Transport: 20, Header: 39, Segment: 1348}, err: ErrOffload},
		{name: "super with headers beyond the packet", s: tcp4, o: packet.Offload{Checksum: partial, Transport: 20, Header: 4053, Segment: 1348}, err: ErrOffload},
		{name: "super with huge segments", s: tcp4, o: packet.Offload{Checksum: partial, Transport: 20, Header: 52, Segment: 65536}, err: ErrOffload},
		{name: "super with negative offsets", s: tcp4, o: packet.Offload{Checksum: partial, Transport: -1, Header: 52, Segment: 1348}, err: ErrOffload},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := encode(tt.s.bytes(), tt.o)
			if h != tt.want || err != tt.err {
				t.Errorf("%+v, %v; want %+v, %v", h, err, tt.want, tt.err)
			}
		})
	}
	if _, err := encode(nil, packet.Offload{}); err != ErrOffload {
		t.Errorf("no packet: %v", err)
	}
}

// TestCutExtended compares the segments with what a sender would have sent one by one.
func TestCutExtended(t *testing.T) {
	s := tcp6ext
	s.flags = 0x80 | 0x10 | 0x08 | 0x01 // CWR, ACK, PSH, FIN
	ip := s.bytes()
	want := s.bytes()[s.header():]
	var b packet.Batch
	h := virtioHeader{needsChecksum, gsoTCPv6, uint16(s.header()), 1348, uint16(s.transport()), tcpChecksum}
	frame := make([]byte, virtioLen, virtioLen+len(ip))
	h.put(frame)
	if err := add(&b, append(frame, ip...)); err != nil {
		t.Fatal(err)
	}
	if len(b.Packets) != 3 {
		t.Fatalf("%d segments", len(b.Packets))
	}
	for i := range b.Packets {
		p := &b.Packets[i]
		var one []byte
		for _, piece := range p.Pieces {
			one = append(one, piece...)
		}
		if p.Offload != (packet.Offload{}) || !s.complete(one) || int(binary.BigEndian.Uint16(one[4:])) != len(one)-40 {
			t.Errorf("segment %d: %+v, %d bytes, checksum right: %v", i, p.Offload, len(one), s.complete(one))
		}
		tcp := one[s.transport():]
		if seq := binary.BigEndian.Uint32(tcp[4:]); seq != uint32(1000+1348*i) {
			t.Errorf("segment %d: sequence number %d", i, seq)
		}
		if flags := [3]byte{0x90, 0x10, 0x19}; tcp[13] != flags[i] {
			t.Errorf("segment %d: flags %#x, want %#x", i, tcp[13], flags[i])
		}
		payload := one[s.header():]
		if string(payload) != string(want[:len(payload)]) {
			t.Errorf("segment %d: payload differs", i)
		}
		want = want[len(payload):]
	}
	if len(want) > 0 {
		t.Errorf("%d bytes are missing", len(want))
	}
}

func TestShortFrames(t *testing.T) {
	for n := range virtioLen + 1 {
		var b packet.Batch
		if err := add(&b, make([]byte, n)); err != errFrameShort || len(b.Packets) > 0 {
			t.Errorf("%d bytes: %v, %d packets", n, err, len(b.Packets))
		}
	}
}

// FuzzFrame feeds frames as from the kernel. What is accepted must describe itself soundly, and must be
// taken by encode in the same meaning.
func FuzzFrame(f *testing.F) {
	for _, s := range []sample{tcp4, tcp4opts, tcp6, tcp6ext, udp4, udp6, udp6ext} {
		for _, h := range []virtioHeader{
			{},
			{flags: dataValid},
			{flags: needsChecksum, checksumStart: uint16(s.transport()), checksumOffset: tcpChecksum},
			{flags: needsChecksum, checksumStart: uint16(s.transport()), checksumOffset: udpChecksum},
			{needsChecksum, gsoTCPv4, uint16(s.header()), 1348, uint16(s.transport()), tcpChecksum},
			{needsChecksum, gsoTCPv6 | gsoECN, uint16(s.header()), 1328, uint16(s.transport()), tcpChecksum},
		} {
			frame := make([]byte, virtioLen)
			h.put(frame)
			f.Add(append(frame, s.bytes()...))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > frameSize {
			return
		}
		var b packet.Batch
		err := add(&b, frame)
		if (err == nil) != (len(b.Packets) > 0) {
			t.Fatalf("%v with %d packets", err, len(b.Packets))
		}
		if errors.Is(err, errExtension) {
			t.Fatal("errExtension is for add alone")
		}
		for i := range b.Packets {
			p := &b.Packets[i]
			first := p.Pieces[0]
			if p.Super() {
				if p.Header > len(first) || p.Header <= p.Transport || p.Len()-p.Header <= p.Segment || p.Checksum != packet.ChecksumPartial {
					t.Fatalf("%+v of %d bytes", p.Offload, p.Len())
				}
				var c packet.Cutter
				if err := c.Start(p, true); err != nil {
					t.Fatalf("%+v: %v", p.Offload, err)
				}
			}
			if p.Checksum == packet.ChecksumPartial && len(p.Pieces) == 1 {
				h, err := encode(first, p.Offload)
				if err != nil {
					t.Fatalf("%+v: %v", p.Offload, err)
				}
				again, err := decode(h, first)
				if err != nil || again != p.Offload {
					t.Fatalf("%+v became %+v: %v", p.Offload, again, err)
				}
			}
		}
	})
}

// FuzzEncode feeds any offload.
func FuzzEncode(f *testing.F) {
	f.Add(tcp4.bytes(), uint8(1), 20, 52, 1348)
	f.Add(udp6.bytes(), uint8(1), 40, 0, 0)
	f.Fuzz(func(t *testing.T, ip []byte, sum uint8, transport, header, segment int) {
		h, err := encode(ip, packet.Offload{Checksum: packet.Checksum(sum), Transport: transport, Header: header, Segment: segment})
		if err == nil && h.flags&needsChecksum != 0 && int(h.checksumStart)+int(h.checksumOffset)+2 > len(ip) {
			t.Fatalf("%+v for %d bytes", h, len(ip))
		}
	})
}
