package relay

import (
	"net/netip"
	"testing"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/wire"
)

// second starts another relay with the same members, which all of them know too.
func (l *lab) second() *Relay {
	l.t.Helper()
	cfg := l.cfg
	cfg.Engine = engine.Config{PrivateKey: wire.PrivateKey{0: 16, 31: 0x61}}
	r, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	addr := netip.MustParseAddrPort("198.51.100.2:5040")
	c, err := l.net.Attach(addr)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := r.AddCarrier(c); err != nil {
		l.t.Fatal(err)
	}
	r.Start()
	for _, n := range l.nodes {
		if _, err := n.engine.AddRemote(engine.RemoteConfig{
			Name: "second", PublicKey: r.Engine().PublicKey(), Endpoint: addr.String(), Relay: true,
		}); err != nil {
			l.t.Fatal(err)
		}
	}
	advance(time.Second)
	return r
}

// TestAnotherRelayTakesOver: the relay in use dies, and stays dead; the session goes on by the other.
func TestAnotherRelayTakesOver(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		l.start()
		meet(a, b)
		second := l.second()
		defer second.Close()
		l.stopRelay()
		began := time.Now()
		for {
			a.send(b, "are you there?")
			advance(100 * time.Millisecond)
			if len(b.dev.texts()) > 0 {
				break
			}
			if time.Since(began) > 15*time.Second {
				t.Fatal("no traffic 15 s after the relay died, and another is there")
			}
		}
		t.Logf("%v after the relay died", time.Since(began))
		b.send(a, "yes")
		a.wantsWithin(5*time.Second, "yes")
		if via := a.status(b).Via; via != "second" {
			t.Errorf("the path goes by %q", via)
		}
	})
}
