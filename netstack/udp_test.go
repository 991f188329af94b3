package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-overlay/adit/packet"
)

func listenPacket(t testing.TB, s *Stack, network, address string) net.PacketConn {
	t.Helper()
	c, err := s.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// wantDatagram reads one datagram and returns where it came from.
func wantDatagram(t testing.TB, c net.PacketConn, want string) net.Addr {
	t.Helper()
	b := make([]byte, 65535)
	n, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:n]) != want {
		t.Fatalf("read %d bytes %.40q, want %d bytes %.40q", n, b[:n], len(want), want)
	}
	return from
}

// What puts fragments together tells datagrams apart by the identification: were it the same for all, then after the loss of one
// fragment none would be put together rightly any more.
func TestFragmentsOfEachDatagramAreItsOwn(t *testing.T) {
	seen := make(map[uint16]int) // fragments, by identification
	p := newPair(t, pairOption{alter: func(toB bool, b []byte, _ *packet.Offload) bool {
		if h, err := packet.Parse(b); toB && err == nil && h.Fragment {
			seen[binary.BigEndian.Uint16(b[4:])]++
		}
		return true
	}})
	server := listenPacket(t, p.b, "udp", ":53")
	client := dial(t, p.a, "udp", addrB+":53")
	const datagrams = 3
	for range datagrams {
		message := strings.Repeat("long", 1000)
		if _, err := client.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		wantDatagram(t, server, message)
	}
	p.stop()
	// Three numbers of 16 random bits are two once in some twenty thousand runs, and are never one.
	if len(seen) < datagrams-1 {
		t.Errorf("the fragments of %d datagrams have the identifications %v", datagrams, seen)
	}
}

func TestDatagrams(t *testing.T) {
	for _, c := range []struct{ network, listen, dial string }{
		{"udp", ":53", addrB},
		{"udp", ":53", addrB6},
		{"udp", "[::]:53", addrB},
		{"udp4", ":53", addrB},
		{"udp6", ":53", addrB6},
		{"udp", addrB + ":53", addrB},
		{"udp", "[" + addrB6 + "]:53", addrB6},
	} {
		t.Run(c.network+" "+c.listen+" "+c.dial, func(t *testing.T) {
			p := newPair(t, pairOption{})
			server := listenPacket(t, p.b, c.network, c.listen)
			client := dial(t, p.a, "udp", net.JoinHostPort(c.dial, "53"))

			// 6000 bytes are fragments, which have to be put together again and verified.
			for _, message := range []string{"question", "", string(bytes.Repeat([]byte("long"), 1500))} {
				if _, err := client.Write([]byte(message)); err != nil {
					t.Fatal(err)
				}
				from := wantDatagram(t, server, message)
				if from.String() != client.LocalAddr().String() {
					t.Errorf("from %v, sent by %v", from, client.LocalAddr())
				}
				if _, err := server.WriteTo([]byte(message), from); err != nil {
					t.Fatal(err)
				}
				wantDatagram(t, client.(net.PacketConn), message)
			}
		})
	}
}

func TestDatagramsToOwnAddress(t *testing.T) {
	p := newPair(t, pairOption{})
	server := listenPacket(t, p.a, "udp", addrA+":53")
	client := listenPacket(t, p.a, "udp", addrA+":0")
	client.WriteTo([]byte("to myself"), server.LocalAddr())
	wantDatagram(t, server, "to myself")
	if got := p.a.Stats().QueueFull; got != 0 {
		t.Errorf("%d packets dropped", got)
	}
}

func TestDatagramErrors(t *testing.T) {
	p := newPair(t, pairOption{})
	server := listenPacket(t, p.b, "udp", addrB+":53")
	client := dial(t, p.a, "udp", addrB+":54")

	client.Write([]byte("to a closed port"))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("read after a port unreachable: %v", err)
	}
	if _, err := client.(net.PacketConn).WriteTo([]byte("x"), server.LocalAddr()); !errors.Is(err, net.ErrWriteToConnected) {
		t.Errorf("WriteTo on a connected socket: %v", err)
	}
	if _, err := server.WriteTo(nil, &net.IPAddr{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("WriteTo an IPAddr: %v", err)
	}
	if _, err := server.(net.Conn).Write([]byte("x")); !errors.Is(err, syscall.EDESTADDRREQ) {
		t.Errorf("Write on an unconnected socket: %v", err)
	}
	if _, err := server.WriteTo(make([]byte, 65530), client.LocalAddr()); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("WriteTo of too much: %v", err)
	}
	if _, err := p.b.ListenPacket("udp", addrB+":53"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("ListenPacket twice: %v", err)
	}
	server.SetReadDeadline(time.Unix(1, 0))
	if _, _, err := server.ReadFrom(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read after the deadline: %v", err)
	}
	server.Close()
	if _, _, err := server.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := server.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

func TestReadIsWoken(t *testing.T) {
	p := newPair(t, pairOption{})
	for _, c := range []struct {
		by   string
		end  func(net.PacketConn)
		want error
	}{
		{"Close", func(c net.PacketConn) { c.Close() }, net.ErrClosed},
		{"a deadline", func(c net.PacketConn) { c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"Close of the stack", func(net.PacketConn) { p.a.Close() }, net.ErrClosed},
	} {
		t.Run(c.by, func(t *testing.T) {
			socket := listenPacket(t, p.a, "udp", ":0")
			read := make(chan error)
			go func() {
				_, _, err := socket.ReadFrom(make([]byte, 1))
				read <- err
			}()
			c.end(socket)
			if err := <-read; !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// Empty datagrams cost memory too: a flood nobody reads must not fill it.
func TestFloodOfEmptyDatagramsIsBounded(t *testing.T) {
	s := newStack(t, nil)
	server := listenPacket(t, s, "udp", ":53")
	from, to := netip.MustParseAddrPort(addrB+":1000"), netip.MustParseAddrPort(addrA+":53")
	const n = 3 * udpQueueBytes / udpOverhead
	in, b := s.Inlet(), udpPacket(from, to, nil)
	for range n {
		copy(in.Lend(len(b)), b)
		in.Deliver(len(b), packet.Offload{})
	}
	const held = udpQueueBytes / udpOverhead
	if got := s.Stats().UDPOverflow; got != n-held {
		t.Errorf("%d dropped, want %d", got, n-held)
	}
	for range held {
		wantDatagram(t, server, "")
	}
	server.SetReadDeadline(time.Unix(1, 0))
	if _, _, err := server.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more than fits: %v", err)
	}
}
