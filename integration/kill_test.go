//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-overlay/adit/tun"
)

// TestKillAtAnyMomentLeavesNothing kills a peer with a full tunnel again and again, while it starts, runs and ends. The kernel
// takes everything away but the routes around the tunnel, and those the next start does; when that has ended in
// order, the host is as it was.
func TestKillAtAnyMomentLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWayOut(t)
	from := byRoute(w.laptopHost)
	before := network(t, w.laptopHost)

	const open = "msg=mode" // what is said when the device is open; sessions with others are not waited for
	start := time.Now()
	p := w.upLaptop(anywhere4, anywhere6)
	p.says(open)
	startTakes := time.Since(start)
	p.kill()

	seed := killSeed(t)
	t.Logf("seed %d (ADIT_KILL_SEED); a start takes %v", seed, startTakes)
	random := rand.New(rand.NewPCG(seed, 0))
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	left := 0 // how often there was something for the next start to do
	for range 24 {
		p.again()
		moment := "in use"
		switch random.IntN(4) {
		case 0, 1:
			d := upTo(startTakes)
			moment = fmt.Sprint(d, " after its start")
			time.Sleep(d) // the moment
		case 2:
			p.says(open)
			w.disperse(t, site4, site6)
			time.Sleep(upTo(20 * time.Millisecond)) // the moment
		case 3:
			p.says(open)
			d := upTo(20 * time.Millisecond)
			moment = fmt.Sprint(d, " after it was asked to end")
			p.Signal(syscall.SIGTERM)
			time.Sleep(d) // the moment
		}
		p.kill()
		t.Log("killed", moment)
		awaitNetwork(t, before, func() string { return besideBypass(network(t, w.laptopHost)) })
		if network(t, w.laptopHost) != before {
			left++
		}
	}
	if left == 0 {
		t.Error("no kill left a route: the test shows nothing")
	}

	p.again()
	p.ready()
	from.awaitConversation(t, site4, soon)
	p.end(t, 0)
	wantNetwork(t, w.laptopHost, before)
}

// killSeed is 1, or what ADIT_KILL_SEED says: the moments follow from it, and from how long a start takes.
func killSeed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("ADIT_KILL_SEED")
	if s == "" {
		return 1
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("ADIT_KILL_SEED: %v", err)
	}
	return n
}

// besideBypass is what network returned, without the routes that lead around a device.
func besideBypass(network string) string {
	var b strings.Builder
	for line := range strings.Lines(network) {
		if !strings.Contains(line, fmt.Sprintf("protocol %d ", tun.BypassProtocol)) {
			b.WriteString(line)
		}
	}
	return b.String()
}
