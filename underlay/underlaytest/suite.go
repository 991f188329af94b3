// Package underlaytest holds every carrier to the contract of underlay.Carrier.
package underlaytest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/adit-overlay/adit/internal/citest"
	"github.com/adit-overlay/adit/underlay"
)

// Ends is a set of carriers that reach each other.
type Ends struct {
	// A and B are the ends of most tests. C is a third, where the carrier has more than two ends;
	// else nil.
	A, B, C underlay.Carrier

	// The addresses others send to, and see as the source. Zero for a carrier between two ends.
	AddrA, AddrB, AddrC netip.AddrPort
}

// Run tests the carriers open makes. It is called anew for each test, and closes what it opened by
// t.Cleanup; closing a carrier twice must do no harm. The carriers must lose nothing of
// 64 KB on their way.
func Run(t *testing.T, open func(t *testing.T) Ends) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Ends)
	}{
		{"messages arrive whole and in order", testMessages},
		{"both directions", testBothDirections},
		{"a batch to several addresses", testSeveralAddresses},
		{"a batch longer than the system takes", testLongBatch},
		{"many goroutines send", testConcurrentSenders},
		{"what is lent stays until the next Receive", testLending},
		{"Send keeps nothing", testSendKeepsNothing},
		{"Probe", testProbe},
		{"fewer places than datagrams", testFewPlaces},
		{"bad messages are refused, the others sent", testBadMessages},
		{"Close ends Receive", testCloseEndsReceive},
		{"Close during Send and Receive", testCloseRace},
		{"closed", testClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Fill returns n bytes that differ from place to place and from seed to seed.
func Fill(n, seed int) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// cut returns the datagrams of m.
func cut(m underlay.Message) [][]byte {
	var ds [][]byte
	for b := m.Buf; len(b) > 0; {
		n := min(m.Seg, len(b))
		ds = append(ds, b[:n])
		b = b[n:]
	}
	return ds
}

// datagram is one received, copied.
type datagram struct {
	from netip.AddrPort
	data []byte
}

// receiveSome waits for datagrams, in places messages.
func receiveSome(t *testing.T, c underlay.Carrier, places int) []datagram {
	t.Helper()
	ms := make([]underlay.Message, places)
	filled, err := c.Receive(ms)
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	if filled < 1 || filled > len(ms) {
		t.Fatalf("Receive filled %d of %d messages", filled, len(ms))
	}
	var got []datagram
	for _, m := range ms[:filled] {
		checkShape(t, m)
		for _, d := range cut(m) {
			got = append(got, datagram{m.Addr, bytes.Clone(d)})
		}
	}
	return got
}

// receive collects datagrams from c until there are n of them, in places messages a time.
func receive(t *testing.T, c underlay.Carrier, n, places int) []datagram {
	t.Helper()
	var got []datagram
	for len(got) < n {
		got = append(got, receiveSome(t, c, places)...)
	}
	if len(got) > n {
		t.Fatalf("received %d datagrams, want %d", len(got), n)
	}
	return got
}

func checkShape(t *testing.T, m underlay.Message) {
	t.Helper()
	if m.Seg < 1 || m.Seg > len(m.Buf) || len(m.Buf) > underlay.MaxMessage || len(cut(m)) > underlay.MaxSegments {
		t.Fatalf("received a message of %d bytes in segments of %d", len(m.Buf), m.Seg)
	}
	if m.Addr.Addr().Is4In6() {
		t.Fatalf("received from %s, which should be unmapped", m.Addr)
	}
}

func want(t *testing.T, got []datagram, from netip.AddrPort, datagrams [][]byte) {
	t.Helper()
	if len(got) != len(datagrams) {
		t.Fatalf("received %d datagrams, want %d", len(got), len(datagrams))
	}
	for i, d := range got {
		if d.from != from {
			t.Errorf("datagram %d is from %s, want %s", i, d.from, from)
		}
		if !bytes.Equal(d.data, datagrams[i]) {
			t.Fatalf("datagram %d of %d bytes is not the one of %d bytes that was sent", i, len(d.data), len(datagrams[i]))
		}
	}
}

func send(t *testing.T, c underlay.Carrier, ms ...underlay.Message) {
	t.Helper()
	if err := c.Send(ms); err != nil {
		t.Fatalf("Send: %v", err)
	}
}

func testMessages(t *testing.T, e Ends) {
	for i, shape := range []struct{ size, seg int }{
		{1, 1},
		{2, 1},
		{64, 1},
		{1432, 1432},
		{1432 + 1, 1432},
		{2 * 1432, 1432},
		{45*1432 + 7, 1432},
		{45 * 1432, 1432},
		{64 * 1000, 1000},
		{63*1000 + 1, 1000},
		{20_000, 9_000},
		{60_000, 59_999},
		{underlay.MaxMessage, underlay.MaxMessage},
		{underlay.MaxMessage, 1100},
	} {
		m := underlay.Message{Buf: Fill(shape.size, i), Seg: shape.seg, Addr: e.AddrB}
		send(t, e.A, m)
		want(t, receive(t, e.B, len(cut(m)), 8), e.AddrA, cut(m))
	}
}

func testBothDirections(t *testing.T, e Ends) {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() {
		ms := make([]underlay.Message, 4)
		for n := 0; n < 50; {
			filled, err := e.B.Receive(ms)
			if err != nil {
				t.Errorf("Receive: %v", err)
				return
			}
			for _, m := range ms[:filled] {
				n += len(cut(m))
			}
			if err := e.B.Send(ms[:filled]); err != nil {
				t.Errorf("Send back to where it came from: %v", err)
				return
			}
		}
	})
	for i := range 50 {
		m := underlay.Message{Buf: Fill(300+i, i), Seg: 300 + i, Addr: e.AddrB}
		send(t, e.A, m)
		want(t, receive(t, e.A, 1, 1), e.AddrB, [][]byte{m.Buf})
	}
}

func testSeveralAddresses(t *testing.T, e Ends) {
	if e.C == nil {
		return // between two ends there is one address to send to
	}
	var ms []underlay.Message
	var toB, toC [][]byte
	for i := range 20 {
		m := underlay.Message{Buf: Fill(1000, i), Seg: 300, Addr: e.AddrB}
		if i%3 == 0 {
			m.Addr = e.AddrC
			toC = append(toC, cut(m)...)
		} else {
			toB = append(toB, cut(m)...)
		}
		ms = append(ms, m)
	}
	send(t, e.A, ms...)
	want(t, receive(t, e.B, len(toB), 3), e.AddrA, toB)
	want(t, receive(t, e.C, len(toC), 8), e.AddrA, toC)
}

func testLongBatch(t *testing.T, e Ends) {
	var ms []underlay.Message
	var all [][]byte
	for i := range 150 {
		m := underlay.Message{Buf: Fill(90+i, i), Seg: 200, Addr: e.AddrB}
		m.Seg = min(m.Seg, len(m.Buf))
		ms = append(ms, m)
		all = append(all, cut(m)...)
	}
	send(t, e.A, ms...)
	want(t, receive(t, e.B, len(all), 8), e.AddrA, all)
}

// testConcurrentSenders checks that what each goroutine sends arrives, and in its order.
func testConcurrentSenders(t *testing.T, e Ends) {
	const senders, each = 8, 100
	room := make(chan struct{}, 24) // datagrams on their way
	ended := make(chan struct{})
	var others sync.WaitGroup
	defer others.Wait()
	defer close(ended)
	for s := range senders {
		others.Go(func() {
			for i := range each {
				select {
				case room <- struct{}{}:
				case <-ended:
					return
				}
				buf := append([]byte{byte(s), byte(i)}, Fill(200, s*each+i)...)
				if err := e.A.Send([]underlay.Message{{Buf: buf, Seg: len(buf), Addr: e.AddrB}}); err != nil {
					t.Errorf("Send: %v", err)
				}
			}
		})
	}
	var next [senders]int
	for got := 0; got < senders*each; {
		for _, d := range receiveSome(t, e.B, 4) {
			got++
			s, i := int(d.data[0]), int(d.data[1])
			if i != next[s] {
				t.Fatalf("sender %d: datagram %d came when %d was due", s, i, next[s])
			}
			next[s]++
			if !bytes.Equal(d.data[2:], Fill(200, s*each+i)) {
				t.Fatalf("sender %d: datagram %d was changed", s, i)
			}
			<-room
		}
	}
}

func testLending(t *testing.T, e Ends) {
	first := underlay.Message{Buf: Fill(2500, 1), Seg: 1000, Addr: e.AddrB}
	second := underlay.Message{Buf: Fill(2500, 2), Seg: 1000, Addr: e.AddrB}
	send(t, e.A, first)
	ms := make([]underlay.Message, 1)
	got := 0
	for got < len(first.Buf) {
		n, err := e.B.Receive(ms)
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		lent := ms[0]
		copied := bytes.Clone(lent.Buf)
		if got == 0 {
			send(t, e.A, second) // arrives, but must not be put where lent is
		}
		if !bytes.Equal(lent.Buf, copied) || !bytes.Equal(copied, first.Buf[got:got+len(copied)]) {
			t.Fatal("lent bytes were overwritten before the next Receive")
		}
		// Growing a lent message must not touch what comes after it.
		_ = append(lent.Buf, make([]byte, 64)...)
		for _, m := range ms[:n] {
			got += len(m.Buf)
		}
	}
	want(t, receive(t, e.B, 3, 1), e.AddrA, cut(second))
}

func testSendKeepsNothing(t *testing.T, e Ends) {
	buf := Fill(5000, 1)
	send(t, e.A, underlay.Message{Buf: buf, Seg: 1000, Addr: e.AddrB})
	clear(buf)
	sent := underlay.Message{Buf: Fill(5000, 1), Seg: 1000}
	want(t, receive(t, e.B, 5, 8), e.AddrA, cut(sent))
}

// testProbe sends probes, which arrive like datagrams, between datagrams, which go on as before.
func testProbe(t *testing.T, e Ends) {
	if err := e.A.Probe(underlay.Message{Buf: []byte{1}, Seg: 1, Addr: e.AddrB}); errors.Is(err, errors.ErrUnsupported) {
		citest.Skipf(t, "%v", err)
	} else if err != nil {
		t.Fatalf("Probe: %v", err)
	}
	want(t, receive(t, e.B, 1, 1), e.AddrA, [][]byte{{1}})
	for i, size := range []int{2, 100, 1200, 1452, 1500, 9000, 32_000, underlay.MaxMessage} {
		probe := underlay.Message{Buf: Fill(size, i), Seg: size, Addr: e.AddrB}
		if err := e.A.Probe(probe); err != nil {
			t.Fatalf("Probe of %d bytes: %v", size, err)
		}
		copied := bytes.Clone(probe.Buf)
		clear(probe.Buf) // it keeps nothing either
		data := underlay.Message{Buf: Fill(20_000, i), Seg: 9000, Addr: e.AddrB}
		send(t, e.A, data)
		want(t, receive(t, e.B, 4, 8), e.AddrA, append([][]byte{copied}, cut(data)...))
	}
	for name, bad := range map[string]underlay.Message{
		"two datagrams": {Buf: Fill(10, 0), Seg: 5, Addr: e.AddrB},
		"no bytes":      {Seg: 1, Addr: e.AddrB},
		"too many":      {Buf: Fill(underlay.MaxMessage+1, 0), Seg: underlay.MaxMessage + 1, Addr: e.AddrB},
	} {
		if err := e.A.Probe(bad); err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, underlay.ErrTooLong) {
			t.Errorf("Probe of %s: %v", name, err)
		}
	}
	if e.AddrB.IsValid() {
		if err := e.A.Probe(underlay.Message{Buf: []byte{1}, Seg: 1}); err == nil {
			t.Error("a probe without an address was sent")
		}
	}
}

func testFewPlaces(t *testing.T, e Ends) {
	var all [][]byte
	for i := range 30 {
		m := underlay.Message{Buf: Fill(10+i%7, i), Seg: 10 + i%7, Addr: e.AddrB}
		all = append(all, m.Buf)
		send(t, e.A, m)
	}
	want(t, receive(t, e.B, len(all), 1), e.AddrA, all)
	if n, err := e.B.Receive(nil); n != 0 || err != nil {
		t.Fatalf("Receive without places = %d, %v; want 0, nil", n, err)
	}
}

func testBadMessages(t *testing.T, e Ends) {
	good := func(seed int) underlay.Message {
		return underlay.Message{Buf: Fill(100, seed), Seg: 100, Addr: e.AddrB}
	}
	for i, bad := range []underlay.Message{
		{Seg: 1},
		{Buf: []byte{}, Seg: 0},
		{Buf: Fill(10, 0), Seg: 0},
		{Buf: Fill(10, 0), Seg: -1},
		{Buf: Fill(10, 0), Seg: 11},
		{Buf: Fill(underlay.MaxSegments+1, 0), Seg: 1},
		{Buf: Fill(underlay.MaxMessage+1, 0), Seg: underlay.MaxMessage},
	} {
		bad.Addr = e.AddrB
		before, after := good(2*i), good(2*i+1)
		if err := e.A.Send([]underlay.Message{before, bad, after}); err == nil {
			t.Errorf("a message of %d bytes in segments of %d was sent", len(bad.Buf), bad.Seg)
		} else if errors.Is(err, net.ErrClosed) {
			t.Fatalf("a bad message closed the carrier: %v", err)
		}
		want(t, receive(t, e.B, 2, 8), e.AddrA, [][]byte{before.Buf, after.Buf})
	}
	if !e.AddrB.IsValid() {
		return
	}
	homeless := good(1)
	homeless.Addr = netip.AddrPort{}
	if err := e.A.Send([]underlay.Message{homeless, good(2)}); err == nil {
		t.Error("a message without an address was sent")
	}
	want(t, receive(t, e.B, 1, 8), e.AddrA, [][]byte{good(2).Buf})
}

func testCloseEndsReceive(t *testing.T, e Ends) {
	waiting := make(chan struct{})
	ended := make(chan error)
	go func() {
		ms := make([]underlay.Message, 1)
		close(waiting)
		_, err := e.B.Receive(ms)
		ended <- err
	}()
	<-waiting
	if err := e.B.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive returned %v, want net.ErrClosed", err)
	}
}

func testCloseRace(t *testing.T, e Ends) {
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			ms := []underlay.Message{{Buf: Fill(3000, i), Seg: 1000, Addr: e.AddrB}}
			for !errors.Is(e.A.Send(ms), net.ErrClosed) {
			}
		})
	}
	all.Go(func() {
		ms := make([]underlay.Message, 4)
		for {
			if _, err := e.A.Receive(ms); err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Receive: %v", err)
				}
				return
			}
		}
	})
	receiveSome(t, e.B, 1) // sending has begun
	for range 2 {
		all.Go(func() { e.A.Close() })
	}
	all.Wait()
}

func testClosed(t *testing.T, e Ends) {
	for i := range 2 {
		if err := e.A.Close(); err != nil {
			t.Errorf("Close, call %d: %v", i+1, err)
		}
	}
	ms := []underlay.Message{{Buf: []byte{1}, Seg: 1, Addr: e.AddrB}}
	if err := e.A.Send(ms); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send: %v, want net.ErrClosed", err)
	}
	if err := e.A.Probe(ms[0]); !errors.Is(err, net.ErrClosed) && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Probe: %v, want net.ErrClosed", err)
	}
	if n, err := e.A.Receive(ms); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive: %d, %v, want net.ErrClosed", n, err)
	}
}
