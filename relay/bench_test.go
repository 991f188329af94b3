package relay

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// The messages that are measured: what a bulk transfer is made of, and what many small packets are.
var benchMessages = []struct {
	name    string
	n, size int
}{
	{"45x1444", 45, 1444},
	{"64x64", 64, 64},
	{"1x64", 1, 64},
}

// The forwarder alone, of one message.
func BenchmarkForward(b *testing.B) {
	for _, bench := range benchMessages {
		b.Run(bench.name, func(b *testing.B) {
			s := newScript()
			r, c := scripted(b, 2, Limits{}, s)
			ab, _ := c[0].circuitTo(c[1])
			forward := direct(b, r, c[0], []underlay.Message{fullMessage(c[0], ab, bench.n, bench.size)}, []wire.CircuitID{ab})
			b.ReportAllocs()
			b.SetBytes(int64(bench.n * bench.size))
			begin := time.Now()
			for b.Loop() {
				forward()
			}
			b.ReportMetric(float64(time.Since(begin).Nanoseconds())/float64(b.N*bench.n), "ns/datagram")
		})
	}
}

// A socketLine is a client's own socket.
type socketLine struct {
	*underlay.UDP
	tb      testing.TB
	borrow  [8]underlay.Message
	waiting []underlay.Message
}

func (l *socketLine) give(ms ...underlay.Message) {
	if err := l.Send(ms); err != nil {
		l.tb.Fatal(err)
	}
}

func (l *socketLine) next(tb testing.TB) underlay.Message {
	if len(l.waiting) == 0 {
		n, err := l.Receive(l.borrow[:])
		if err != nil {
			tb.Fatal(err)
		}
		l.waiting = l.borrow[:n]
	}
	m := l.waiting[0]
	l.waiting = l.waiting[1:]
	return m
}

func listen(b *testing.B) *underlay.UDP {
	b.Helper()
	u, err := underlay.ListenUDP(context.Background(), "127.0.0.1:0", underlay.Config{})
	if err != nil {
		b.Fatal(err)
	}
	return u
}

// From a member's socket by the relay's to another member's, on loopback: most of it is the kernel's.
func BenchmarkForwardUDP(b *testing.B) {
	for _, bench := range benchMessages {
		b.Run(bench.name, func(b *testing.B) {
			var cfg Config
			cfg.Engine.PrivateKey = wire.PrivateKey{1: 200, 31: 0x40}
			var c [2]*client
			for i := range c {
				c[i] = &client{tb: b, key: wire.PrivateKey{1: byte(i + 1), 31: 0x40}}
				cfg.Members = append(cfg.Members, Member{Name: fmt.Sprint("m", i), PublicKey: c[i].key.Public()})
			}
			r, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			u := listen(b)
			if err := r.AddCarrier(u); err != nil {
				b.Fatal(err)
			}
			r.Start()
			for _, c := range c {
				line := &socketLine{UDP: listen(b), tb: b}
				defer line.Close()
				c.at, c.addr = line, u.LocalAddr()
				c.connect(r)
			}
			id, _ := c[0].circuitTo(c[1])
			m := fullMessage(c[0], id, bench.n, bench.size)

			// So few bytes are on their way that no socket's buffer is ever full, and nothing is lost.
			window := max(1, 150_000/(bench.n*(bench.size+700)))
			arrived := make(chan struct{}, window)
			receiver := c[1].at.(*socketLine)
			go func() {
				datagrams := 0
				for {
					n, err := receiver.Receive(receiver.borrow[:])
					if err != nil {
						return // closed
					}
					for _, m := range receiver.borrow[:n] {
						datagrams += int(segments(m))
					}
					for ; datagrams >= bench.n; datagrams -= bench.n {
						arrived <- struct{}{}
					}
				}
			}()
			underway := 0
			wait := func() {
				select {
				case <-arrived:
					underway--
				case <-time.After(5 * time.Second):
					b.Fatal("a datagram was lost")
				}
			}
			b.SetBytes(int64(bench.n * bench.size))
			begin := time.Now()
			for b.Loop() {
				if underway == window {
					wait()
				}
				c[0].at.give(m)
				underway++
			}
			b.ReportMetric(float64(time.Since(begin).Nanoseconds())/float64(b.N*bench.n), "ns/datagram")
			for underway > 0 {
				wait()
			}
		})
	}
}
