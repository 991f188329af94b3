package engine

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/adit-overlay/adit/wire"
)

// A session that has ended is held by nothing, neither by who began it nor by who answered: what its
// ciphers made of its keys is garbage from then on. The keys themselves were zeroed when the ciphers were made.
func TestEndedSessionIsHeldByNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b))
		b.knows(a, at(a))
		talk := func() {
			a.send(b, "there")
			b.wants("there")
			b.send(a, "back")
			a.wants("back")
		}
		talk()
		ended := map[string]weak.Pointer[session]{
			"its initiator": weak.Make(a.sessionWith(b)), "its responder": weak.Make(b.sessionWith(a)),
		}
		for range 3 { // the way of packets remembers the last session it met
			advance(wire.RekeyAfter + wire.KeepPrevious + time.Second)
			talk()
		}
		runtime.GC()
		for who, s := range ended {
			if s.Value() != nil {
				t.Errorf("%s still holds the session", who)
			}
		}
	})
}
