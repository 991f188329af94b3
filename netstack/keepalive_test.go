package netstack

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"

	"github.com/adit-overlay/adit/packet"
)

// The stack's own clock is advanced by hand: its goroutines park in a way that synctest does not take for
// idle, so that a bubble's clock would stand still.
func TestDeadFarEndIsNoticed(t *testing.T) {
	for _, c := range []struct {
		name   string
		unsent string // written after the far end went dead
		within time.Duration
	}{
		{"idle", "", keepaliveIdle + (keepaliveCount+1)*keepaliveInterval},
		{"with data under way", "x", 8 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := faketime.NewManualClock()
			var dead atomic.Bool
			p := newPair(t, pairOption{
				a:     func(cfg *Config) { cfg.clock = clock },
				alter: func(bool, []byte, *packet.Offload) bool { return !dead.Load() },
			})
			near, _ := join(t, p, addrB)
			dead.Store(true)
			near.Write([]byte(c.unsent))
			read := make(chan error, 1)
			go func() {
				_, err := near.Read(make([]byte, 1))
				read <- err
			}()
			for passed := time.Duration(0); ; passed += time.Second {
				select {
				case err := <-read:
					if !errors.Is(err, syscall.ETIMEDOUT) {
						t.Errorf("after %v: %v, want ETIMEDOUT", passed, err)
					}
					return
				default:
				}
				// The reader may take a moment to wake: that is not the clock's time.
				if passed > c.within {
					if err := <-read; !errors.Is(err, syscall.ETIMEDOUT) {
						t.Errorf("%v", err)
					}
					if n := p.a.Stats().Established; n != 0 {
						t.Errorf("%d connections still there", n)
					}
					return
				}
				clock.Advance(time.Second)
			}
		})
	}
}
