package netstack

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// While there is a far connection the stack's buffers may grow further, and afterwards no longer.
func TestFarBuffers(t *testing.T) {
	p := newFarPair(t, farLine{rtt: farFrom})
	s := p.a.s
	limit := func() int {
		var o tcpip.TCPReceiveBufferSizeRangeOption
		if err := s.ip.g.TransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			t.Fatal(err)
		}
		return o.Max
	}
	if limit() != farBuffer {
		t.Errorf("a far connection: buffers up to %d bytes, want %d", limit(), farBuffer)
	}
	s.tuning.leave(s, true)
	if limit() != nearBuffer {
		t.Errorf("no far connection: buffers up to %d bytes, want %d", limit(), nearBuffer)
	}
	if near := newFarPair(t, farLine{rtt: farFrom / 2}).a.s; near.tuning.far != 0 {
		t.Error("a near connection is taken for a far one")
	}
}

// Many connections share what few may have: else a far end that opens them by the thousand and reads nothing would hold as
// many times megabytes.
func TestManyConnectionsHaveSmallerBuffers(t *testing.T) {
	for _, tt := range []struct{ conns, far, most int }{
		{0, 0, nearBuffer}, {1, 0, nearBuffer}, {1, 1, farBuffer}, {crowd, 0, nearBuffer}, {crowd + 1, 0, nearBuffer / 2},
		{2 * crowd, 1, farBuffer / 2}, {2*crowd + 1, 0, nearBuffer / 4}, {100 * crowd, 0, leastBuffer}, {100000, 1, leastBuffer},
	} {
		if got := mostBuffer(tt.conns, tt.far); got != tt.most {
			t.Errorf("%d connections, %d of them far: %d bytes, want %d", tt.conns, tt.far, got, tt.most)
		}
	}
	s := newFarPair(t, farLine{rtt: farFrom / 2}).a.s
	limits := func() (first, most int) {
		var o tcpip.TCPSendBufferSizeRangeOption
		if err := s.ip.g.TransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			t.Fatal(err)
		}
		return o.Default, o.Max
	}
	s.tuning.count(s, false, 5000)
	if first, most := limits(); first != leastBuffer || most != leastBuffer {
		t.Errorf("with 5000 connections buffers have %d to %d bytes, want %d", first, most, leastBuffer)
	}
	s.tuning.count(s, false, -5000)
	if _, most := limits(); most != nearBuffer {
		t.Errorf("afterwards buffers have up to %d bytes, want %d", most, nearBuffer)
	}
}

// In a crowd that begins to send all at once, each one's first flight waits for those of the others. What waits is not lost.
func TestWhatWaitsInACrowdIsNotSentAgain(t *testing.T) {
	for _, tt := range []struct {
		others int
		wait   time.Duration
		again  bool
	}{
		{0, leastTimeout * 9 / 10, false},
		{0, leastTimeoutInCrowd * 9 / 10, true},
		{crowd, leastTimeout * 19 / 10, true},
		{crowd + 1, leastTimeout * 19 / 10, false},
		{2000, leastTimeoutInCrowd * 9 / 10, false},
		{2000, leastTimeoutInCrowd * 11 / 10, true},
	} {
		t.Run(fmt.Sprintf("%d others, waits %v", tt.others, tt.wait), func(t *testing.T) {
			p := newFarPair(t, farLine{rtt: time.Millisecond, others: tt.others})
			p.line.rtt = tt.wait
			sent, n := 10<<10, 0
			if _, err := p.a.ep.Write(bytes.NewReader(make([]byte, sent)), tcpip.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			p.run(10*time.Second, func() {
				var into bytes.Buffer
				p.b.ep.Read(&into, tcpip.ReadOptions{})
				n += into.Len()
			})
			if n != sent {
				t.Errorf("%d bytes arrived of %d", n, sent)
			}
			if again := p.a.s.ip.g.Stats().TCP.Retransmits.Value(); (again > 0) != tt.again {
				t.Errorf("%d segments sent again, want some: %v", again, tt.again)
			}
		})
	}
}

// Who connects when the crowd has gone repeats as soon as who connected before it came.
func TestTimeoutIsShortAgainAfterACrowd(t *testing.T) {
	for _, tt := range []struct {
		conns int
		least time.Duration
	}{
		{0, leastTimeout}, {1, leastTimeout}, {crowd, leastTimeout}, {crowd + 1, 2 * leastTimeout}, {2 * crowd, 2 * leastTimeout},
		{2*crowd + 1, 4 * leastTimeout}, {8 * crowd, 8 * leastTimeout}, {8*crowd + 1, leastTimeoutInCrowd}, {100000, leastTimeoutInCrowd},
	} {
		if got := timeoutAmong(tt.conns); got != tt.least {
			t.Errorf("%d connections: %v, want %v", tt.conns, got, tt.least)
		}
	}
	s := newFarPair(t, farLine{rtt: farFrom / 2}).a.s
	for _, tt := range []struct {
		change int
		least  time.Duration
	}{{2000, leastTimeoutInCrowd}, {-2000, leastTimeout}} {
		s.tuning.count(s, false, tt.change)
		var o tcpip.TCPMinRTOOption
		if err := s.ip.g.TransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			t.Fatal(err)
		}
		if time.Duration(o) != tt.least {
			t.Errorf("after %+d connections: a least timeout of %v, want %v", tt.change, time.Duration(o), tt.least)
		}
	}
}
