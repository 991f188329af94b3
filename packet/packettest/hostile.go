// Package packettest makes packets that no honest host sends. Whatever parses packets is given all of them: each must be refused, or
// go on as bytes that nobody looked into, without a panic, a loop or a read beyond its end.
package packettest

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// A Packet is a hostile packet and what is wrong with it.
type Packet struct {
	Name  string
	Bytes []byte
}

// Addresses are what the packets say they are from and to, so that they get past who asks for no more. Nothing is changed
// where an address itself is what is wrong.
type Addresses struct {
	From4, To4 netip.Addr
	From6, To6 netip.Addr
}

const (
	ipv4Header = 20
	ipv6Header = 40

	hopByHop    = 0
	tcp         = 6
	udp         = 17
	routing     = 43
	fragment    = 44
	icmpv6      = 58
	noNext      = 59
	destination = 60
)

func (a Addresses) v4(proto byte, payload ...byte) []byte {
	b := make([]byte, ipv4Header, ipv4Header+len(payload))
	b[0], b[8], b[9] = 0x45, 64, proto
	copy(b[12:], a.From4.AsSlice())
	copy(b[16:], a.To4.AsSlice())
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return sumIPv4(b, ipv4Header)
}

func (a Addresses) v6(next byte, payload ...byte) []byte {
	b := make([]byte, ipv6Header, ipv6Header+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	copy(b[8:], a.From6.AsSlice())
	copy(b[24:], a.To6.AsSlice())
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	return b
}

// sumIPv4 makes the header checksum right, so that what is wrong is not found out by that.
func sumIPv4(b []byte, header int) []byte {
	if len(b) < header {
		return b
	}
	b[10], b[11] = 0, 0
	var sum uint32
	for i := 0; i+1 < header; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return b
}

func set(b []byte, at int, v ...byte) []byte {
	copy(b[at:], v)
	return b
}

func zeros(n int) []byte { return make([]byte, n) }

// Malformed are packets whose IP header alone condemns them. All begin with version 4 or 6.
func (a Addresses) Malformed() []Packet {
	segment := zeros(20)
	segment[12] = 0x50
	mapped := netip.MustParseAddr("::ffff:10.9.0.1").AsSlice()
	jumbo := append([]byte{tcp, 0, 0xc2, 4, 0, 1, 0, 0}, zeros(200)...)
	return []Packet{
		{"IPv4, one byte", []byte{0x45}},
		{"IPv4, a byte short of its header", a.v4(tcp)[:ipv4Header-1]},
		{"IPv4, header length 0", set(a.v4(tcp, segment...), 0, 0x40)},
		{"IPv4, header length 16", set(a.v4(tcp, segment...), 0, 0x44)},
		{"IPv4, header longer than the packet", set(a.v4(tcp), 0, 0x4f)},
		{"IPv4, header a word longer than the packet", set(a.v4(tcp, 1, 2, 3), 0, 0x46)},
		{"IPv4, total length 0", set(a.v4(tcp, segment...), 2, 0, 0)},
		{"IPv4, total length less than its header", set(a.v4(tcp, segment...), 2, 0, 19)},
		{"IPv4, total length beyond the packet", set(a.v4(tcp, segment...), 2, 0xff, 0xff)},
		{"IPv4, bytes behind the packet", append(a.v4(tcp, segment...), 0)},
		{"IPv6, one byte", []byte{0x60}},
		{"IPv6, a byte short of its header", a.v6(tcp)[:ipv6Header-1]},
		{"IPv6, payload beyond the packet", set(a.v6(tcp, segment...), 4, 0xff, 0xff)},
		{"IPv6, bytes behind the packet", append(a.v6(tcp, segment...), 0)},
		{"IPv6, payload length 0 and a payload", set(a.v6(tcp, segment...), 4, 0, 0)},
		{"IPv6, a jumbogram", set(a.v6(hopByHop, jumbo...), 4, 0, 0)},
		{"IPv6, IPv4-mapped source", set(a.v6(tcp, segment...), 8, mapped...)},
		{"IPv6, IPv4-mapped destination", set(a.v6(tcp, segment...), 24, mapped...)},
	}
}

// Odd are packets whose IP header is in order, and what is behind it is not.
func (a Addresses) Odd() []Packet {
	options4 := func(options ...byte) []byte {
		b := set(a.v4(udp, append(options, 0, 7, 0, 53, 0, 8, 0, 0)...), 0, 0x45+byte(len(options)/4))
		return sumIPv4(b, ipv4Header+len(options))
	}
	segment := func(offset byte, flags byte, options ...byte) []byte {
		s := append(zeros(20), options...)
		s[1], s[3], s[12], s[13] = 7, 80, offset, flags
		return s
	}
	fragment4 := func(word uint16, n int) []byte {
		b := a.v4(udp, zeros(n)...)
		binary.BigEndian.PutUint16(b[6:], word)
		return sumIPv4(b, ipv4Header)
	}
	fragment6 := func(next byte, word uint16, payload ...byte) []byte {
		return append([]byte{next, 0, byte(word >> 8), byte(word), 0, 0, 0, 1}, payload...)
	}
	chain := []byte(strings.Repeat("\x3c\x00\x01\x04\x00\x00\x00\x00", 1500)) // destination options, each followed by the next
	return []Packet{
		{"IPv4, option of length 0", options4(7, 0, 0, 0)},
		{"IPv4, option of length 1", options4(7, 1, 0, 0)},
		{"IPv4, option longer than the header", options4(7, 39, 4, 0)},
		{"IPv4, record route whose pointer is before its room", options4(7, 7, 3, 0, 0, 0, 0, 0)},
		{"IPv4, timestamps whose pointer is beyond them", options4(68, 8, 255, 0xf1, 0, 0, 0, 0)},
		{"IPv4, fragment that ends beyond 65535", fragment4(0x1fff, 64)},
		{"IPv4, fragment of no bytes", fragment4(0x2000, 0)},
		{"IPv4, fragment that is no multiple of eight", fragment4(0x2000, 13)},
		{"IPv4, last fragment of nothing before", fragment4(0x0010, 64)},
		{"IPv4, TCP shorter than its header", a.v4(tcp, zeros(7)...)},
		{"IPv4, TCP header length 0", a.v4(tcp, segment(0x00, 0x02)...)},
		{"IPv4, TCP header longer than the packet", a.v4(tcp, segment(0xf0, 0x02)...)},
		{"IPv4, TCP option of length 0", a.v4(tcp, segment(0x60, 0x02, 2, 0, 0, 0)...)},
		{"IPv4, TCP option longer than the header", a.v4(tcp, segment(0x60, 0x02, 2, 40, 0, 0)...)},
		{"IPv4, TCP with all flags", a.v4(tcp, segment(0x50, 0xff)...)},
		{"IPv4, UDP shorter than its header", a.v4(udp, 0, 7, 0, 53)},
		{"IPv4, UDP length 0", a.v4(udp, 0, 7, 0, 53, 0, 0, 0, 0, 1, 2, 3)},
		{"IPv4, UDP length beyond the packet", a.v4(udp, 0, 7, 0, 53, 0xff, 0xff, 0, 0)},
		{"IPv4, ICMP error about a cut packet", a.v4(1, 3, 4, 0, 0, 0, 0, 0, 0, 0x4f, 0, 0xff)},
		{"IPv6, hop-by-hop options beyond the packet", a.v6(hopByHop, tcp, 255, 1, 4, 0, 0, 0, 0)},
		{"IPv6, destination option longer than its header", a.v6(destination, tcp, 0, 5, 200, 0, 0, 0, 0)},
		{"IPv6, routing header beyond the packet", a.v6(routing, tcp, 255, 0, 255, 0, 0, 0, 0)},
		{"IPv6, routing header with segments left", a.v6(routing, udp, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)},
		{"IPv6, extension header of one byte", a.v6(destination, tcp)},
		{"IPv6, a chain of 1500 extension headers", a.v6(destination, chain...)},
		{"IPv6, jumbo option and a payload length", a.v6(hopByHop, append([]byte{udp, 0, 0xc2, 4, 0xff, 0xff, 0xff, 0xff}, zeros(8)...)...)},
		{"IPv6, fragment in a fragment", a.v6(fragment, fragment6(fragment, 1, fragment6(udp, 1, zeros(16)...)...)...)},
		{"IPv6, fragment that ends beyond 65535", a.v6(fragment, fragment6(udp, 0xfff8, zeros(64)...)...)},
		{"IPv6, fragment of no bytes", a.v6(fragment, fragment6(udp, 1)...)},
		{"IPv6, fragment header cut", a.v6(fragment, udp, 0, 0)},
		{"IPv6, atomic fragment of a cut TCP header", a.v6(fragment, fragment6(tcp, 0, 1, 2, 3)...)},
		{"IPv6, no next header and a payload", a.v6(noNext, zeros(32)...)},
		{"IPv6, TCP header longer than the packet", a.v6(tcp, segment(0xf0, 0x02)...)},
		{"IPv6, TCP option of length 0", a.v6(tcp, segment(0x60, 0x02, 2, 0, 0, 0)...)},
		{"IPv6, UDP length 0", a.v6(udp, 0, 7, 0, 53, 0, 0, 0, 0, 1, 2, 3)},
		{"IPv6, UDP length beyond the packet", a.v6(udp, 0, 7, 0, 53, 0xff, 0xff, 0, 0)},
		{"IPv6, ICMP error about a cut packet", a.v6(icmpv6, 2, 0, 0, 0, 0, 0, 5, 0, 0x60, 0, 0xff)},
		{"IPv6, neighbour advertisement with an option of length 0", a.v6(icmpv6, append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, append(zeros(16), 2, 0, 0, 0, 0, 0, 0, 0)...)...)},
	}
}

// All are Malformed and Odd.
func (a Addresses) All() []Packet { return append(a.Malformed(), a.Odd()...) }
