package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
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
		{"IPv6, forbidden", addrB6, "fd00:9::1", 1, syscall.ENETUNREACH},
		{"IPv6, address unreachable", addrB6, "fd00:9::1", 3, syscall.ENETUNREACH},
		{"IPv6, reject route", addrB6, "fd00:9::1", 6, syscall.ENETUNREACH},
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
