package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// TestTenThousandRekeysLoseNothing: packets flow both ways all the while, some always under way when the
// keys change, with delay and reordering; each arrives, once.
func TestTenThousandRekeysLoseNothing(t *testing.T) {
	rekeys := 10_000
	if raceEnabled {
		rekeys = 500
	}
	inFakeTime(t, func(t *testing.T, l *lab) {
		l.net = underlay.NewMemory(underlay.MemoryConfig{Seed: 5, Link: underlay.Link{
			Delay: 40 * time.Millisecond, Jitter: 30 * time.Millisecond,
		}})
		a, b := l.plan("a"), l.plan("b")
		a.rekey, b.rekey = 10*time.Second, 10*time.Second
		a.start()
		b.start()
		a.knows(b, at(b))
		b.knows(a, at(a))
		advance(time.Second)
		sessions := map[wire.Index]bool{}
		sent, got := [2]int{}, [2]int{}
		nodes := [2]*node{a, b}
		for i := 0; len(sessions) < rekeys; i++ {
			for j, n := range nodes {
				n.send(nodes[1-j], fmt.Sprint(sent[j]))
				sent[j]++
			}
			time.Sleep(time.Duration(40+i%17) * 10 * time.Millisecond)
			sessions[a.sessionWith(b).local] = true
			for j, n := range nodes {
				got[j] += len(n.dev.take())
			}
		}
		advance(time.Second)
		for j, n := range nodes {
			got[j] += len(n.dev.take())
			if want := sent[1-j]; got[j] != want {
				t.Errorf("%s received %d of %d packets over %d rekeys; drops %v", n.name, got[j], want, rekeys, n.engine.Stats().Drops)
			}
			if held := len(n.engine.indexes.sessions); held > 3 { // current, previous, next
				t.Errorf("%s still holds %d sessions", n.name, held)
			}
		}
	})
}

func TestRekeyIsTheInitiatorsAndDueAfterFiveMinutes(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		initiations := l.record(wire.KindInitiation)
		a.knows(b, at(b))
		b.knows(a, at(a))
		advance(time.Second)
		first := a.sessionWith(b)
		initiations.take()
		advance(wire.RekeyAfter - 2*time.Second)
		if a.sessionWith(b) != first {
			t.Fatal("new keys before their time")
		}
		advance(3 * time.Second)
		if a.sessionWith(b) == first {
			t.Fatal("no new keys after five minutes")
		}
		if n := len(initiations.take()); n != 1 {
			t.Errorf("it took %d initiations", n)
		}
		wantsOneSession(a, b)
	})
}

func TestSessionWithoutUseIsNotRenewed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b)).paths.endpoint = "" // known where, but not kept up with
		b.knows(a, "")
		a.send(b, "x")
		b.wants("x")
		advance(wire.RejectAfter + time.Minute)
		if a.sessionWith(b) != nil || b.sessionWith(a) != nil {
			t.Fatal("a session past its end is still there")
		}
		if n := len(a.engine.indexes.sessions) + len(b.engine.indexes.sessions); n != 0 {
			t.Errorf("%d indexes are left", n)
		}
		a.send(b, "again")
		b.wants("again")
	})
}

// TestCounterLimits: near its limit a counter makes new keys be asked for, at its limit the session
// ends; and what was sent meanwhile is not lost.
func TestCounterLimits(t *testing.T) {
	for name, used := range map[string]int{"rekey": wire.RekeyAfterPackets, "reject": wire.RejectAfterPackets - 1} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				a, b := l.pair()
				first := a.sessionWith(b)
				if _, err := first.sealer.Reserve(used - int(first.sealer.Reserved())); err != nil {
					t.Fatal(err)
				}
				for i := range 5 {
					a.send(b, fmt.Sprint(i))
				}
				advance(2 * time.Second)
				b.wants("0", "1", "2", "3", "4")
				if a.sessionWith(b) == first {
					t.Error("the keys are still those")
				}
				wantsOneSession(a, b)
			})
		})
	}
}

// TestNoCounterIsSealedUnderTwice watches the wire while many goroutines send and keys change.
func TestNoCounterIsSealedUnderTwice(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.rekey, b.rekey = 10*time.Second, 10*time.Second
		a.start()
		b.start()
		type nonce struct {
			from    netip.AddrPort
			index   wire.Index
			counter uint64
		}
		var mu sync.Mutex
		seen := map[nonce]int{}
		l.net.SetTap(func(from, to netip.AddrPort, d []byte) []byte {
			if h, ok := wire.ParseData(d); ok {
				mu.Lock()
				seen[nonce{from, h.Receiver, h.Counter}]++
				mu.Unlock()
			}
			return d
		})
		ra, rb := a.knows(b, at(b)), b.knows(a, at(a))
		advance(time.Second)
		var wg sync.WaitGroup
		for _, r := range []*Remote{ra, rb} {
			for range 4 {
				wg.Go(func() {
					for range 300 {
						r.Send(wire.Probe{})
						time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
					}
				})
			}
		}
		for i := range 300 {
			a.send(b, fmt.Sprint(i))
			b.send(a, fmt.Sprint(i))
			time.Sleep(150 * time.Millisecond)
		}
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		for n, times := range seen {
			if times > 1 {
				t.Fatalf("%v: sealed %d times", n, times)
			}
		}
		if len(seen) < 2000 {
			t.Fatalf("only %d packets seen", len(seen))
		}
	})
}

func TestForgedTruncatedAndRandomDatagramsAreDroppedAndCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		before := b.sessionWith(a)
		data := l.record(wire.KindData)
		a.send(b, "the real one")
		b.wants("the real one")
		l.net.SetTap(nil)
		real := data.take()[0]
		dropped := func() (n uint64) {
			for _, d := range b.engine.Stats().Drops {
				n += d
			}
			return n
		}
		earlier := dropped() // what crossed when the session was made
		r := rand.New(rand.NewPCG(1, 1))
		injected := uint64(0)
		inject := func(d []byte) { l.net.Inject(a.addr, b.addr, d); injected++ }
		for i := 1; i < len(real); i++ {
			inject(real[:i]) // truncated everywhere
		}
		for i := range real {
			for bit := range 8 { // each bit turned over
				d := append([]byte(nil), real...)
				d[i] ^= 1 << bit
				inject(d)
			}
		}
		for range 5000 { // noise, half of it with a plausible beginning
			d := make([]byte, 1+r.IntN(200))
			for i := range d {
				d[i] = byte(r.Uint32())
			}
			if r.IntN(2) == 0 {
				d[0] = byte(r.IntN(9))
			}
			inject(d)
		}
		synctest.Wait()
		if got := b.dev.take(); len(got) != 0 {
			t.Fatalf("%d packets were delivered", len(got))
		}
		if counted := dropped() - earlier; counted != injected {
			t.Errorf("%d injected, %d counted as dropped: %v", injected, counted, b.engine.Stats().Drops)
		}
		if b.sessionWith(a) != before {
			t.Error("the session has changed")
		}
		a.send(b, "unharmed")
		b.wants("unharmed")
	})
}

func TestInnerSourceMustBeTheRemotes(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		for _, src := range []string{"10.9.0.77", "10.9.0.2", "8.8.8.8"} { // a third's, b's own, the world's
			a.dev.in <- udpPacket(netip.MustParseAddr(src), b.ip, "forged")
		}
		b.wants()
		if n := b.drops(DropSource); n != 3 {
			t.Errorf("%d counted, want 3", n)
		}
		a.send(b, "mine")
		b.wants("mine")
	})
}

func TestMalformedInnerPacketsAreDroppedAndCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		good := udpPacket(a.ip, b.ip, "x").Pieces[0]
		change := func(f func(p []byte) []byte) []byte { return f(append([]byte(nil), good...)) }
		mapped := udpPacket(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), "x").Pieces[0]
		copy(mapped[8:], netip.MustParseAddr("::ffff:10.9.0.1").AsSlice())
		bad := [][]byte{
			good[:10],
			change(func(p []byte) []byte { p[0] = 0x4f; return p }),        // header beyond the packet
			change(func(p []byte) []byte { p[0] = 0x41; return p }),        // header shorter than a header
			change(func(p []byte) []byte { p[3] = 200; return p }),         // length beyond the packet
			change(func(p []byte) []byte { return append(p, 0, 0, 0, 0) }), // bytes behind the packet
			{0x60},
			mapped,
		}
		ra, s := a.remote(b), a.sessionWith(b)
		for _, p := range bad {
			ra.sendInnerBy(s, *ra.path.Load(), p, quiet, time.Now())
		}
		b.wants()
		if n := b.drops(DropInner); n != uint64(len(bad)) {
			t.Errorf("%d counted, want %d: %v", n, len(bad), b.engine.Stats().Drops)
		}
		for _, m := range [][]byte{{0x01}, {0x7f, 1, 2}, {0x14, 0}, {0xff}} { // control messages that are none
			ra.sendInnerBy(s, *ra.path.Load(), m, quiet, time.Now())
		}
		if n := b.drops(DropControl); n != 4 {
			t.Errorf("%d control messages counted, want 4", n)
		}
	})
}

func TestMalformedPacketsFromTheDeviceAreDroppedAndCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		a.dev.in <- &packet.Packet{}
		a.dev.in <- &packet.Packet{Pieces: [][]byte{{}}}
		a.dev.in <- &packet.Packet{Pieces: [][]byte{{0x45, 0}}}
		super := udpPacket(a.ip, b.ip, "x")
		super.Offload = packet.Offload{Segment: 100, Header: 5000, Transport: 20}
		a.dev.in <- super
		if n := a.drops(DropOutgoing); n != 4 {
			t.Errorf("%d counted, want 4", n)
		}
		a.send(b, "fine")
		b.wants("fine")
	})
}

func TestCloseReturnsWhateverIsUnderWay(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		c := l.plan("c") // never there
		a.knows(c, at(c))
		for i := range 100 {
			a.send(b, fmt.Sprint(i))
			a.send(c, fmt.Sprint(i))
		}
		a.engine.Close()
		a.engine.Close()
		if _, err := a.engine.AddRemote(RemoteConfig{PublicKey: wire.PrivateKey{9, 31: 64}.Public()}); err == nil {
			t.Error("a closed engine took a remote")
		}
		if err := a.engine.AddCarrier(b.wire); err == nil {
			t.Error("a closed engine took a carrier")
		}
		if err := a.dev.Read(new(packet.Batch)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the device is still open: %v", err)
		}
	})
}

// A session that nothing comes back by ends at one end a moment before it does at the other. What is sent in that
// moment must not pass for sent to somebody who has restarted: what came before it would be sent again, and arrive twice.
func TestNothingArrivesTwiceWhenASessionEnds(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		l.net.SetDefault(underlay.Link{Delay: 300 * time.Millisecond}) // by so much its ages differ
		a, b := l.plan("a"), l.plan("b")
		a.rekey, b.rekey = 10*time.Second, 10*time.Second
		a.start()
		b.start()
		a.knows(b, at(b))
		b.knows(a, "")
		advance(2 * time.Second)
		wantsOneSession(a, b)
		l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond})
		var deaf atomic.Bool
		deaf.Store(true)
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if deaf.Load() && from == b.addr && wire.KindOf(d) != wire.KindNotice {
				return nil
			}
			return d
		})
		got := map[string]int{}
		for i := range 1000 {
			a.send(b, fmt.Sprint(i))
			advance(20 * time.Millisecond)
			if b.sessionWith(a) == nil {
				deaf.Store(false)
			}
			for _, s := range b.dev.texts() {
				if got[s]++; got[s] > 1 {
					t.Fatalf("packet %s arrived twice", s)
				}
			}
		}
		if deaf.Load() || len(got) < 900 {
			t.Errorf("%d packets arrived; the session ended: %v", len(got), !deaf.Load())
		}
		wantsOneSession(a, b)
		advance(30 * time.Second)
		for _, n := range []*node{a, b} { // current, previous, and what is left of the first
			if held := len(n.engine.indexes.sessions); held > 3 {
				t.Errorf("%s still holds %d indexes", n.name, held)
			}
		}
	})
}
