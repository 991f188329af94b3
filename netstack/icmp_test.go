package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/adit-overlay/adit/packet"
)

func TestPing(t *testing.T) {
	p := newPair(t, pairOption{})
	for _, to := range []string{addrB, addrB6, addrA} {
		if rtt, err := p.a.Ping(context.Background(), netip.MustParseAddr(to)); err != nil || rtt < 0 {
			t.Errorf("ping %s: %v, %v", to, rtt, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.a.Ping(ctx, netip.MustParseAddr("10.9.0.77")); !errors.Is(err, context.Canceled) {
		t.Errorf("ping of nobody: %v", err)
	}
}

// unreachable returns the ICMP error about packet b that a router at from would send.
func unreachable(from netip.Addr, b []byte, code byte) []byte {
	if b[0]>>4 == 4 {
		body := b[:min(len(b), 28)]
		out := make([]byte, 28+len(body))
		header.IPv4(out).Encode(&header.IPv4Fields{
			TotalLength: uint16(len(out)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
			SrcAddr: addressOf(from), DstAddr: header.IPv4(b).SourceAddress(),
		})
		header.IPv4(out).SetChecksum(^header.IPv4(out).CalculateChecksum())
		m := out[20:]
		m[0], m[1] = byte(header.ICMPv4DstUnreachable), code
		copy(m[8:], body)
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		return out
	}
	body := b[:min(len(b), 48)]
	out := make([]byte, 48+len(body))
	header.IPv6(out).Encode(&header.IPv6Fields{
		PayloadLength: uint16(8 + len(body)), HopLimit: 64, TransportProtocol: header.ICMPv6ProtocolNumber,
		SrcAddr: addressOf(from), DstAddr: header.IPv6(b).SourceAddress(),
	})
	m := out[40:]
	m[0], m[1] = byte(header.ICMPv6DstUnreachable), code
	copy(m[8:], body)
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, addressOf(from), header.IPv6(b).SourceAddress(), uint16(len(m)))
	binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, sum))
	return out
}

func TestUnreachableEndsDialAtOnce(t *testing.T) {
	for _, c := range []struct {
		name, to, from string
		code           byte
		want           syscall.Errno
	}{
		{"no route to the network", addrB, "10.9.0.1", 0, syscall.ENETUNREACH},
		{"no route to the host", addrB, "10.9.0.1", 1, syscall.EHOSTUNREACH},
		{"forbidden", addrB, "10.9.0.1", 13, syscall.EHOSTUNREACH},
		{"IPv6, no route", addrB6, "fd00:9::1", 0, syscall.ENETUNREACH},
		{"IPv6, forbidden", addrB6, "fd00:9::1", 1, syscall.EHOSTUNREACH},
		{"IPv6, address unreachable", addrB6, "fd00:9::1", 3, syscall.EHOSTUNREACH},
		{"IPv6, port unreachable", addrB6, "fd00:9::1", 4, syscall.ECONNREFUSED},
		{"IPv6, reject route", addrB6, "fd00:9::1", 6, syscall.EHOSTUNREACH},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(Config{Addresses: []netip.Prefix{
				netip.MustParsePrefix(addrA + "/24"), netip.MustParsePrefix(addrA6 + "/64"),
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			dialled := make(chan error)
			go func() {
				_, err := s.Dial("tcp", net.JoinHostPort(c.to, "80"))
				dialled <- err
			}()
			deliver(t, s, unreachable(netip.MustParseAddr(c.from), wantPacket(t, s), c.code), packet.Offload{})
			if err := <-dialled; !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if s.Stats().BadICMP != 0 {
				t.Error("the message was counted as bad")
			}
		})
	}
}

// tooBig returns the ICMP error of a router at from that b was longer than its MTU.
func tooBig(from netip.Addr, b []byte, mtu uint16) []byte {
	out := unreachable(from, b, byte(header.ICMPv4FragmentationNeeded))
	if from.Is4() {
		m := out[20:]
		binary.BigEndian.PutUint16(m[6:], mtu)
		binary.BigEndian.PutUint16(m[2:], 0)
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		return out
	}
	m := out[40:]
	m[0], m[1] = byte(header.ICMPv6PacketTooBig), 0
	binary.BigEndian.PutUint16(m[6:], mtu)
	binary.BigEndian.PutUint16(m[2:], 0)
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, addressOf(from), header.IPv6(b).SourceAddress(), uint16(len(m)))
	binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, sum))
	return out
}

func TestPathMTUIsBelievedWithinReason(t *testing.T) {
	const headers4, headers6 = 20 + 20 + 40, 40 + 20 + 40 // with room for TCP options
	for _, c := range []struct {
		host     string
		mtu      uint16
		believed bool
		want     int // segment size
	}{
		{addrB, 1300, true, 1300 - headers4},
		{addrB, 552, true, 552 - headers4},
		{addrB, 551, false, DefaultMTU - headers4},
		{addrB, 68, false, DefaultMTU - headers4},
		{addrB, 0, false, DefaultMTU - headers4},
		{addrB6, 1300, true, 1300 - headers6},
		{addrB6, 1280, true, 1280 - headers6},
		{addrB6, 1279, false, DefaultMTU - headers6},
		{addrB6, 0, false, DefaultMTU - headers6},
	} {
		t.Run(fmt.Sprint(c.host, " ", c.mtu), func(t *testing.T) {
			var size atomic.Int64
			var last atomic.Pointer[[]byte]
			p := newPair(t, pairOption{alter: func(toB bool, b []byte, o *packet.Offload) bool {
				if toB {
					b = bytes.Clone(b)
					last.Store(&b)
					size.Store(max(size.Load(), int64(o.Segment)))
				}
				return true
			}})
			near, far := join(t, p, c.host)
			message := tooBig(netip.MustParseAddr(c.host), *last.Load(), c.mtu)
			if err := deliver(t, p.a, message, packet.Offload{}); (err == nil) != c.believed {
				t.Errorf("taken with %v", err)
			}
			transfer(t, near, far, 1<<20)
			if got := int(size.Load()); got != c.want {
				t.Errorf("segments of %d bytes, want %d", got, c.want)
			}
			if got := p.a.Stats(); got.BadICMP != 0 {
				t.Errorf("%d messages counted as bad", got.BadICMP)
			}
		})
	}
}

// wantPacket returns a copy of the next packet a stack sends.
func wantPacket(t testing.TB, s *Stack) []byte {
	t.Helper()
	var batch packet.Batch
	if err := s.Read(&batch); err != nil {
		t.Fatal(err)
	}
	var b []byte
	for _, piece := range batch.Packets[0].Pieces {
		b = append(b, piece...)
	}
	return b
}

func deliver(t testing.TB, s *Stack, b []byte, o packet.Offload) error {
	t.Helper()
	in := s.Inlet()
	copy(in.Lend(len(b)), b)
	return in.Deliver(len(b), o)
}
