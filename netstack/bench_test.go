package netstack

import (
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/adit-overlay/adit/internal/heaptest"
	"github.com/adit-overlay/adit/packet"
)

// Two stacks joined in memory: one copy between them stands for all that is beneath.

func BenchmarkTransfer(b *testing.B) {
	for _, conns := range []int{1, 8} {
		b.Run(strconv.Itoa(conns), func(b *testing.B) {
			const size = 256 << 10 // of a write
			var supers, packets atomic.Int64
			p := newPair(b, pairOption{alter: func(_ bool, _ []byte, o *packet.Offload) bool {
				packets.Add(1)
				if o.Super() {
					supers.Add(1)
				}
				return true
			}})
			near, far := make([]net.Conn, conns), make([]net.Conn, conns)
			for i := range near {
				near[i], far[i] = join(b, p, addrB)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			supers.Store(0)
			packets.Store(0)
			b.SetBytes(size)
			b.ResetTimer()
			var running sync.WaitGroup
			for i := range near {
				n := b.N / conns
				if i < b.N%conns {
					n++
				}
				running.Go(func() {
					data := make([]byte, size)
					for range n {
						if _, err := near[i].Write(data); err != nil {
							b.Error(err)
							return
						}
					}
					near[i].(*tcpConn).CloseWrite()
				})
				running.Go(func() {
					io.CopyBuffer(io.Discard, struct{ io.Reader }{far[i]}, make([]byte, size))
				})
			}
			running.Wait()
			b.StopTimer()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(b.N)*size*8/1e9/b.Elapsed().Seconds(), "Gbit/s")
			if n := float64(supers.Load()); n > 0 {
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/super-packet")
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/n, "B/super-packet")
				b.ReportMetric(float64(packets.Load())/n, "packets/super-packet")
			}
		})
	}
}

func BenchmarkPingPong(b *testing.B) {
	p := newPair(b, pairOption{})
	near, far := join(b, p, addrB)
	var echo sync.WaitGroup
	echo.Go(func() {
		io.CopyBuffer(struct{ io.Writer }{far}, struct{ io.Reader }{far}, make([]byte, 1))
	})
	one := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := near.Write(one); err != nil {
			b.Fatal(err)
		}
		if _, err := near.Read(one); err != nil {
			b.Fatal(err)
		}
	}
	near.Close()
	echo.Wait()
}

func BenchmarkConnectClose(b *testing.B) {
	p := newPair(b, pairOption{})
	closeAll(listen(b, p.b, "tcp", ":80"))
	b.ReportAllocs()
	for b.Loop() {
		c, err := p.a.Dial("tcp", addrB+":80")
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, struct{ io.Reader }{c})
		c.Close()
	}
}

func BenchmarkDatagrams(b *testing.B) {
	p := newPair(b, pairOption{})
	server := listenPacket(b, p.b, "udp", ":53")
	client := dial(b, p.a, "udp", addrB+":53")
	message := make([]byte, 1200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, _, err := server.ReadFrom(message); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleConnections tells what both ends of an established connection that is silent hold together.
func BenchmarkIdleConnections(b *testing.B) {
	const n = 10_000
	p := newPair(b, pairOption{})
	l := listen(b, p.b, "tcp", ":80")
	var held, goroutines float64
	for b.Loop() {
		before, running := heaptest.InUse(), runtime.NumGoroutine()
		conns := make([]net.Conn, 0, 2*n)
		for range n {
			near, err := p.a.Dial("tcp", addrB+":80")
			if err != nil {
				b.Fatal(err)
			}
			far, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			conns = append(conns, near, far)
		}
		held = float64(heaptest.InUse()-before) / n
		goroutines = float64(runtime.NumGoroutine()-running) / n
		for _, c := range conns {
			c.Close()
		}
	}
	b.ReportMetric(held, "B/connection")
	b.ReportMetric(goroutines, "goroutines/connection")
}
