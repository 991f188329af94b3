package engine

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/adit-overlay/adit/wire"
)

// TestNothingHoldsTheKeysOfAnEndedSession: Go offers no way to zero what a cipher derived from its key, so of a session that has ended
// nothing may be left to hold it: neither of one that was replaced, nor of one that grew old, ran out of counters, was never
// confirmed, or was current when the engine closed.
func TestNothingHoldsTheKeysOfAnEndedSession(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.rekey, b.rekey = 10*time.Second, 10*time.Second
		a.start()
		b.start()
		ra := a.knows(b, at(b))
		b.knows(a, "")
		type kept struct {
			how     string
			session weak.Pointer[session]
		}
		var ended []kept
		note := func(how string, n *node) {
			synctest.Wait()
			n.engine.indexes.mu.RLock()
			defer n.engine.indexes.mu.RUnlock()
			for _, s := range n.engine.indexes.sessions {
				ended = append(ended, kept{how, weak.Make(s)})
			}
		}
		for range 5 {
			a.send(b, "x")
			advance(11 * time.Second)
			note("replaced", a)
			note("replaced", b)
		}
		a.sessionWith(b).sealer.Reserve(wire.RejectAfterPackets - 1 - int(a.sessionWith(b).sealer.Reserved()))
		note("used up", a)
		a.send(b, "x")
		a.send(b, "y")
		advance(time.Second)
		for _, d := range a.initiations(b, 2, time.Nanosecond, time.Now()) {
			l.net.Inject(attacker, b.addr, d)
		}
		note("never confirmed", b)
		l.net.Partition(a.addr, b.addr)
		advance(wire.RejectAfter)
		note("old", b)
		l.net.Heal(a.addr, b.addr)
		advance(5 * time.Second)
		note("current at the end", a)
		note("current at the end", b)
		a.stop()
		b.stop()
		synctest.Wait()
		if len(ended) < 15 {
			t.Fatalf("only %d sessions were seen", len(ended))
		}
		runtime.GC()
		runtime.GC()
		for _, k := range ended {
			if k.session.Value() != nil {
				t.Errorf("a session, %s, is still held", k.how)
			}
		}
		runtime.KeepAlive(ra) // what the engine knows of a remote goes on
		runtime.KeepAlive(a)
		runtime.KeepAlive(b)
	})
}

// TestKeysAreWipedOnceSealerAndOpenerAreMade, where the keys lay; and an initiation that is given up loses its ephemeral key.
func TestKeysAreWipedOnceSealerAndOpenerAreMade(t *testing.T) {
	k := wire.Keys{Send: wire.SessionKey{1}, Receive: wire.SessionKey{2}, LocalIndex: 3, RemoteIndex: 4}
	s := newSession(nil, &k, true, time.Now())
	if k != (wire.Keys{}) {
		t.Error("the keys are still there")
	}
	if s.local != 3 || s.peer != 4 {
		t.Errorf("session %d/%d", s.local, s.peer)
	}
	slot := make([]byte, wire.DataOverhead)
	counter, _ := s.sealer.Reserve(1)
	s.sealer.Seal(slot, counter, 0, new(wire.Nonce))
	zero := wire.Keys{Receive: wire.SessionKey{}}
	if _, err := zero.NewOpener().Open(make([]byte, 1), slot, new(wire.Nonce)); err == nil || bytes.Equal(slot[16:], make([]byte, 16)) {
		t.Error("the session seals under a key of zeros")
	}
}
