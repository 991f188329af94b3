package peer_test

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
)

// Hundreds of dials hang on a member that is not there. Dials to another are there meanwhile, and lose no packet: for each
// connection there is one SYN.
func TestDialsToADeadMemberDelayNoOthers(t *testing.T) {
	const hung, others = 300, 100
	l := newLab(t, inMemory, "laptop", "web", "absent")
	laptop, web := l.pair("laptop", "web")
	pages := listen(t, web, ":80")
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range hung {
		waiting.Go(func() {
			if c, err := laptop.DialContext(ctx, "tcp", "10.9.0.4:80"); err == nil {
				c.Close()
				t.Error("connected to nobody")
			} else if !errors.Is(err, context.Canceled) && !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
				t.Error(err)
			}
		})
	}
	sent := func() (n uint64) {
		for _, r := range laptop.Status().Remotes {
			if !r.Relay {
				n += r.Traffic.SentPackets
			}
		}
		return n
	}
	before := sent()
	for range others {
		dial(t, laptop, "tcp", "10.9.0.3:80") // closed with the test
		if _, err := pages.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	if n := sent() - before; n > 2*others { // a SYN and an ACK each
		t.Errorf("%d packets sent for %d dials", n, others)
	}
	cancel()
	waiting.Wait()
}
