package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A drain is a carrier that loses what is sent.
type drain struct{ underlay.Carrier }

func (drain) Send([]underlay.Message) error { return nil }

// A responder's part of a handshake, from the queue to the carrier: with a remote that it has met, which makes a
// session anew, and with one that it has only been told of.
func BenchmarkServeInitiation(b *testing.B) {
	const remotes = 64
	for _, bench := range []struct {
		name string
		met  bool
	}{{"first", false}, {"again", true}} {
		b.Run(bench.name, func(b *testing.B) {
			e, err := New(Config{PrivateKey: wire.PrivateKey{31: 0x40}})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			node, err := underlay.NewMemory(underlay.MemoryConfig{}).Attach(netip.MustParseAddrPort("192.0.2.1:5040"))
			if err != nil {
				b.Fatal(err)
			}
			c := drain{node}
			if err := e.AddCarrier(c); err != nil {
				b.Fatal(err)
			}
			now := time.Now()
			var msgs [remotes][]byte
			var known [remotes]*Remote
			for i := range remotes {
				l, err := wire.NewLocal(wire.PrivateKey{1: byte(i + 1), 31: 0x40})
				if err != nil {
					b.Fatal(err)
				}
				if known[i], err = e.AddRemote(RemoteConfig{PublicKey: l.Public()}); err != nil {
					b.Fatal(err)
				}
				if _, msgs[i], err = l.Initiate(nil, e.PublicKey(), wire.PresharedKey{}, wire.Index(i+1), now, nil); err != nil {
					b.Fatal(err)
				}
			}
			from := path{carrier: c, addr: netip.MustParseAddrPort("192.0.2.2:5040")}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := known[i%remotes]
				r.mu.Lock()
				r.hs.accepted, r.hs.budget = wire.Timestamp{}, budget{} // as if it were the first, or long ago
				r.mu.Unlock()
				if !bench.met {
					e.local.Forget(r.key)
					e.local.Know(r.key)
				}
				e.serveInitiation(letter{msg: msgs[i%remotes], from: from}, now)
			}
			for _, r := range known {
				if r.keys.next == nil {
					b.Fatal("no session")
				}
			}
		})
	}
}
