package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// fuzzed is an engine with one remote, a session with it, and one circuit, all made without a
// carrier's goroutine, so that a fuzzer drives it alone.
func fuzzed(t testing.TB) (e *Engine, in *inbound, s *session) {
	net := underlay.NewMemory(underlay.MemoryConfig{})
	c, err := net.Attach(netip.MustParseAddrPort("192.0.2.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	e, err = New(Config{PrivateKey: wire.PrivateKey{8, 31: 64}, Device: newDevice()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); c.Close() })
	other, err := wire.NewLocal(wire.PrivateKey{16, 31: 64})
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.AddRemote(RemoteConfig{PublicKey: other.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")}})
	if err != nil {
		t.Fatal(err)
	}
	e.cfg.Random = zeros{}
	_, msg, err := other.Initiate(nil, e.PublicKey(), wire.PresharedKey{}, 5, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	e.serveInitiation(letter{msg: msg, from: path{carrier: c, addr: netip.MustParseAddrPort("192.0.2.2:2")}}, time.Now())
	s = r.keys.next
	if s == nil {
		t.Fatal("no session")
	}
	return e, newInbound(e, c, newTurnstile().newTurn(), false), s
}

// zeros make the first session index known: 0.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// FuzzDatagram feeds whatever arrives from the underlay to the way in.
func FuzzDatagram(f *testing.F) {
	for kind := range byte(9) {
		for _, n := range []int{1, 8, 12, 32, 52, 92, 150, 600} {
			b := make([]byte, n)
			b[0] = kind
			f.Add(b, 0)
		}
	}
	e, in, _ := fuzzed(f)
	f.Fuzz(func(t *testing.T, b []byte, seg int) {
		if len(b) == 0 || len(b) > underlay.MaxMessage {
			return
		}
		if seg <= 0 || seg > len(b) {
			seg = len(b)
		}
		in.now = time.Now()
		in.message(&underlay.Message{Buf: b, Seg: seg, Addr: netip.MustParseAddrPort("192.0.2.2:2")})
		in.out.Flush()
		for { // what was posted is served at once
			select {
			case l := <-e.inbox.others:
				e.serve(l, in.now)
				continue
			case l := <-e.inbox.handshakes:
				e.serveInitiation(l, in.now)
				continue
			default:
			}
			break
		}
		if got := e.cfg.Device.(*device).take(); len(got) > 0 {
			t.Fatalf("a datagram nobody sealed was delivered: %x", b)
		}
	})
}

// FuzzInner feeds whatever a member may seal to what comes after opening.
func FuzzInner(f *testing.F) {
	f.Add(udpPacket(netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.1"), "x").Pieces[0], false)
	f.Add(tcpSuper(netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.1"), 1, 600).Pieces[0], true)
	f.Add([]byte{0x01, 1, 2, 3, 4, 5, 6, 7, 8}, false)
	f.Add([]byte{0x14}, false)
	e, in, s := fuzzed(f)
	from := path{carrier: in.carrier, addr: netip.MustParseAddrPort("192.0.2.2:2")}
	f.Fuzz(func(t *testing.T, b []byte, partial bool) {
		if len(b) == 0 || len(b) > 60000 {
			return
		}
		in.now = time.Now()
		dst := in.out.Room(len(b), 3*len(b))
		copy(dst, b)
		if v := b[0] >> 4; v != 4 && v != 6 {
			in.out.Discard()
			e.serveControl(letter{msg: b, from: from, remote: s.remote, sealed: s}, in.now)
			return
		}
		in.deliver(s, len(b), partial)
		in.out.Flush()
		for _, p := range e.cfg.Device.(*device).take() {
			src := netip.AddrFrom4([4]byte(p.Pieces[0][12:16]))
			if p.Pieces[0][0]>>4 != 4 || src != netip.MustParseAddr("10.9.0.2") {
				t.Fatalf("delivered from an address that is not the remote's: %x", p.Pieces[0])
			}
		}
	})
}
