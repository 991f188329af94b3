package netstack

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/adit-overlay/adit/packet"
)

// udpPacket returns a UDP packet with complete checksums.
func udpPacket(src, dst netip.AddrPort, payload []byte) []byte {
	length := header.UDPMinimumSize + len(payload)
	var b, u []byte
	if src.Addr().Is4() {
		b = make([]byte, header.IPv4MinimumSize+length)
		header.IPv4(b).Encode(&header.IPv4Fields{
			TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
			SrcAddr: addressOf(src.Addr()), DstAddr: addressOf(dst.Addr()),
		})
		header.IPv4(b).SetChecksum(^header.IPv4(b).CalculateChecksum())
		u = b[header.IPv4MinimumSize:]
	} else {
		b = make([]byte, header.IPv6MinimumSize+length)
		header.IPv6(b).Encode(&header.IPv6Fields{
			PayloadLength: uint16(length), HopLimit: 64, TransportProtocol: header.UDPProtocolNumber,
			SrcAddr: addressOf(src.Addr()), DstAddr: addressOf(dst.Addr()),
		})
		u = b[header.IPv6MinimumSize:]
	}
	copy(u[header.UDPMinimumSize:], payload)
	header.UDP(u).Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(length)})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, addressOf(src.Addr()), addressOf(dst.Addr()), uint16(length))
	header.UDP(u).SetChecksum(^checksum.Checksum(u, sum))
	return b
}

// fragment cuts an IPv4 packet in two.
func fragment(b []byte, at int) (first, second []byte) {
	const ip = header.IPv4MinimumSize
	cut := func(from, to int, more bool) []byte {
		f := append(append([]byte(nil), b[:ip]...), b[ip+from:ip+to]...)
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		offset := uint16(from / 8)
		if more {
			offset |= 0x2000
		}
		binary.BigEndian.PutUint16(f[6:], offset)
		header.IPv4(f).SetChecksum(0)
		header.IPv4(f).SetChecksum(^header.IPv4(f).CalculateChecksum())
		return f
	}
	return cut(0, at, true), cut(at, len(b)-ip, false)
}

func newStack(t testing.TB, set func(*Config)) *Stack {
	t.Helper()
	cfg := Config{Addresses: []netip.Prefix{
		netip.MustParsePrefix(addrA + "/24"), netip.MustParsePrefix(addrA6 + "/64"),
	}}
	if set != nil {
		set(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestOnlyGoodChecksumsPass(t *testing.T) {
	from4, to4 := netip.MustParseAddrPort(addrB+":1000"), netip.MustParseAddrPort(addrA+":53")
	from6, to6 := netip.MustParseAddrPort("["+addrB6+"]:1000"), netip.MustParseAddrPort("["+addrA6+"]:53")
	complete := packet.Offload{}
	partial4 := packet.Offload{Checksum: packet.ChecksumPartial, Transport: 20}
	partial6 := packet.Offload{Checksum: packet.ChecksumPartial, Transport: 40}
	verified := packet.Offload{Checksum: packet.ChecksumVerified}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[len(b)-at] ^= 1; return b }
	}
	noChecksum := func(b []byte) []byte { header.UDP(b[20:]).SetChecksum(0); return b }
	badIP := func(b []byte) []byte { b[8]--; return b } // TTL
	same := func(b []byte) []byte { return b }

	for _, c := range []struct {
		name  string
		to    netip.AddrPort
		alter func([]byte) []byte
		o     packet.Offload
		pass  bool
	}{
		{"complete and right", to4, same, complete, true},
		{"complete and wrong", to4, flip(1), complete, false},
		{"IPv4 without checksum", to4, noChecksum, complete, true},
		{"IPv4 header wrong", to4, badIP, complete, false},
		{"partial", to4, flip(1), partial4, true},
		{"verified", to4, same, verified, true},
		{"IPv6, complete and right", to6, same, complete, true},
		{"IPv6, complete and wrong", to6, flip(1), complete, false},
		{"IPv6, partial", to6, flip(1), partial6, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t, nil)
			server := listenPacket(t, s, "udp", ":53")
			from := from4
			if c.to.Addr().Is6() {
				from = from6
			}
			if err := deliver(t, s, c.alter(udpPacket(from, c.to, []byte("payload"))), c.o); err != nil {
				t.Fatal(err)
			}
			// Delivery of UDP is done when Deliver returns: what passed is there now.
			deliver(t, s, udpPacket(from, c.to, []byte("last")), complete)
			b := make([]byte, 100)
			n, _, err := server.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			if pass := string(b[:n]) != "last"; pass != c.pass {
				t.Errorf("passed: %v, want %v", pass, c.pass)
			}
			if stats := s.Stats(); (stats.BadUDP+stats.BadIP == 0) != c.pass {
				t.Errorf("counted %d and %d", stats.BadUDP, stats.BadIP)
			}
		})
	}
}

// Not even the sender's word makes fragments pass unverified: they are verified when put together.
func TestFragmentsAreVerified(t *testing.T) {
	from, to := netip.MustParseAddrPort(addrB+":1000"), netip.MustParseAddrPort(addrA+":53")
	for _, o := range []packet.Offload{{}, {Checksum: packet.ChecksumVerified}} {
		s := newStack(t, nil)
		server := listenPacket(t, s, "udp", ":53")
		payload := make([]byte, 2000)
		good := udpPacket(from, to, payload)
		bad := udpPacket(from, to, payload)
		bad[len(bad)-1] ^= 1
		binary.BigEndian.PutUint16(bad[4:], 7) // another datagram
		for _, b := range [][]byte{bad, good} {
			first, second := fragment(b, 1000)
			deliver(t, s, second, o)
			deliver(t, s, first, o)
		}
		wantDatagram(t, server, string(payload))
		if got := s.Stats().BadUDP; got != 1 {
			t.Errorf("%d datagrams counted as bad, want 1", got)
		}
	}
}

func TestDeliverRefuses(t *testing.T) {
	s := newStack(t, nil)
	own, other := netip.MustParseAddrPort(addrA+":1"), netip.MustParseAddrPort(addrB+":1")
	foreign := netip.MustParseAddrPort("192.0.2.1:1")
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, errMalformed},
		{"a first byte", []byte{0x45}, errMalformed},
		{"no IP", make([]byte, 60), errMalformed},
		{"IHL beyond the packet", append([]byte{0x4f}, make([]byte, 30)...), errMalformed},
		{"IHL too small", append([]byte{0x44}, make([]byte, 30)...), errMalformed},
		{"half an IPv6 header", append([]byte{0x60}, make([]byte, 30)...), errMalformed},
		{"own source", udpPacket(own, own, nil), errOwnSource},
		{"foreign destination", udpPacket(other, foreign, nil), errNotForHere},
		{"own destination", udpPacket(other, own, nil), nil},
	} {
		if err := deliver(t, s, c.b, packet.Offload{}); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if got := s.Stats(); got.Malformed != 6 || got.OwnSource != 1 || got.NotForHere != 1 {
		t.Errorf("counted %+v", got)
	}
	s.Close()
	if err := deliver(t, s, udpPacket(other, own, nil), packet.Offload{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func FuzzDeliver(f *testing.F) {
	a4, b4 := netip.MustParseAddrPort(addrA+":53"), netip.MustParseAddrPort(addrB+":1000")
	a6, b6 := netip.MustParseAddrPort("["+addrA6+"]:53"), netip.MustParseAddrPort("["+addrB6+"]:1000")
	whole := udpPacket(b4, a4, make([]byte, 64))
	first, second := fragment(whole, 32)
	for _, b := range [][]byte{whole, first, second, udpPacket(b6, a6, make([]byte, 64)),
		unreachable(b4.Addr(), udpPacket(a4, b4, nil), 3), unreachable(b6.Addr(), udpPacket(a6, b6, nil), 3)} {
		f.Add(b, false)
		f.Add(b, true)
	}
	s := newStack(f, func(c *Config) {
		c.Advertise = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		c.Host = refusingHost
	})
	go func() {
		var batch packet.Batch
		for s.Read(&batch) == nil {
		}
	}()
	f.Fuzz(func(t *testing.T, b []byte, trusted bool) {
		if len(b) > maxLend {
			return
		}
		// Past the addresses, so that what follows is reached.
		if len(b) >= 20 && b[0]>>4 == 4 {
			copy(b[12:], b4.Addr().AsSlice())
			copy(b[16:], a4.Addr().AsSlice())
		}
		if len(b) >= 40 && b[0]>>4 == 6 {
			copy(b[8:], b6.Addr().AsSlice())
			copy(b[24:], a6.Addr().AsSlice())
		}
		var o packet.Offload
		if trusted {
			o = packet.Offload{Checksum: packet.ChecksumPartial, Transport: 20}
		}
		deliver(t, s, b, o)
	})
}

func TestConfigErrorsNameTheField(t *testing.T) {
	good := netip.MustParsePrefix(addrA + "/24")
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "netstack: Addresses: at least one is required"},
		{Config{Addresses: []netip.Prefix{good, {}}}, "netstack: Addresses[1]: invalid Prefix is no unicast address with a prefix length"},
		{Config{Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}, "netstack: Addresses[0]: 127.0.0.1/8 is no unicast address with a prefix length"},
		{Config{Addresses: []netip.Prefix{good}, MTU: 500}, "netstack: MTU: 500 is not within 576 and 65000"},
		{Config{Addresses: []netip.Prefix{good, netip.MustParsePrefix("fd00:9::1/64")}, MTU: 600}, "netstack: MTU: 600 is not within 1280 and 65000"},
		{Config{Addresses: []netip.Prefix{good}, GSOMaxSegments: 65}, "netstack: GSOMaxSegments: 65 is not within 1 and 64"},
		{Config{Addresses: []netip.Prefix{good}, Advertise: []netip.Prefix{{}}}, "netstack: Advertise[0]: invalid Prefix is no prefix"},
	} {
		if _, err := New(c.cfg); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

// A peer that is silent must be so in IPv6 too: no address detection, no router solicitation, no group
// reports.
func TestNothingIsSentUnasked(t *testing.T) {
	s := newStack(t, nil)
	s.Close()
	var batch packet.Batch
	if err := s.Read(&batch); err != net.ErrClosed {
		t.Errorf("read %d packets, %v; want none", len(batch.Packets), err)
	}
}
