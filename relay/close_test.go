package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Close returns while members talk and open circuits, to each of several callers, and nothing is sent after.
func TestCloseUnderWay(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, c := l.plan("a"), l.plan("b"), l.plan("c")
		x, y := l.member("x"), l.member("y")
		l.start()
		x.connect()
		y.connect()
		id, _ := join(x, y)
		time.Sleep(sweepEvery - time.Second - 20*time.Millisecond) // until just before circuits are swept
		stop := make(chan struct{})
		var wg sync.WaitGroup
		chat := func(from, to *node) {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case from.dev.in <- udpPacket(from.ip, to.ip, "chat"):
						time.Sleep(50 * time.Microsecond)
					}
				}
			})
		}
		chat(a, b)
		chat(b, a)
		chat(c, a)
		wg.Go(func() {
			d := circuitData(id, "chat")
			for {
				select {
				case <-stop:
					return
				default:
					x.wire.Send([]underlay.Message{{Buf: d, Seg: len(d), Addr: l.addr}})
					time.Sleep(10 * time.Microsecond)
				}
			}
		})
		time.Sleep(20 * time.Millisecond)
		var after atomic.Bool
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if from == l.addr && after.Load() {
				t.Error("the relay sent something after Close")
			}
			return d
		})
		time.Sleep(3 * time.Millisecond)
		var closing sync.WaitGroup
		for range 3 {
			closing.Go(func() {
				if err := l.relay.Close(); err != nil {
					t.Error(err)
				}
				after.Store(true)
			})
		}
		closing.Wait()
		time.Sleep(10 * time.Millisecond)
		close(stop)
		wg.Wait()
		if got := l.relay.Stats().Datagrams; got == 0 {
			t.Error("nothing was under way")
		}
	})
}

func TestCloseWithoutStart(t *testing.T) {
	r, err := New(Config{Engine: engine.Config{PrivateKey: wire.PrivateKey{1: 1, 31: 0x40}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	r.Start() // too late, and harmless
	s := newScript()
	if err := r.AddCarrier(s); !errors.Is(err, net.ErrClosed) {
		t.Errorf("AddCarrier after Close: %v", err)
	}
	select {
	case <-s.closed:
	default:
		t.Error("the carrier was left open")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesAPrivateKeyOfZeros(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a relay without a key")
	}
}
