package wire

import (
	"bytes"
	"sync"
	"testing"

	"github.com/flynn/noise"
)

// handshake makes a session of a and b, and fails unless the ends agree.
func handshake(t testing.TB, a, b *Local) {
	t.Helper()
	ini, msg := initiate(t, a, b, PresharedKey{}, "")
	m2, theirs := respond(t, b, msg, PresharedKey{})
	ours, err := ini.Finish(m2)
	if err != nil {
		t.Fatal(err)
	}
	wantSession(t, ours, theirs)
}

// wantRemembered fails unless l remembers what it shares with those, and nothing else.
func wantRemembered(t *testing.T, l *Local, remotes ...*Local) {
	t.Helper()
	if n := len(l.statics.of); n != len(remotes) {
		t.Fatalf("%d results are remembered, want %d", n, len(remotes))
	}
	for _, r := range remotes {
		public := r.Public()
		want, err := noise.DH25519.DH(l.static.Private, public[:])
		if err != nil {
			t.Fatal(err)
		}
		if got := l.statics.get(r.Public()); !bytes.Equal(got, want) {
			t.Fatalf("remembered %x, want %x", got, want)
		}
	}
}

func TestOnlyTheKnownAreRemembered(t *testing.T) {
	a, b, c := newTestLocal(t, 1), newTestLocal(t, 2), newTestLocal(t, 3)
	handshake(t, a, b)
	wantRemembered(t, a)
	wantRemembered(t, b)
	b.Know(a.Public())
	b.Know(a.Public())
	wantRemembered(t, b, a)
	handshake(t, a, b) // one end knows the other
	handshake(t, b, a)
	handshake(t, c, b) // a stranger
	handshake(t, b, c)
	wantRemembered(t, b, a)
	a.Know(b.Public())
	handshake(t, a, b)
	for _, k := range lowOrderKeys {
		b.Know(k)
	}
	wantRemembered(t, b, a)
}

func TestWhatIsRememberedIsUsed(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	b.Know(a.Public())
	b.statics.of[a.Public()][0] ^= 1
	_, msg := initiate(t, a, b, PresharedKey{}, "")
	if _, err := b.ReadInitiation(msg); err == nil {
		t.Error("it is not")
	}
}

func TestForgottenIsZeroed(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	b.Know(a.Public())
	have := b.statics.of[a.Public()]
	lent := b.statics.get(a.Public())
	b.Forget(a.Public())
	b.Forget(a.Public())
	wantRemembered(t, b)
	if *have != [32]byte{} {
		t.Error("not zeroed")
	}
	if bytes.Equal(lent, have[:]) {
		t.Error("what a handshake under way was given is zeroed too")
	}
	handshake(t, a, b)
}

// A handshake may go on while its remote comes and goes.
func TestRemotesComeAndGoDuringHandshakes(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				b.Know(a.Public())
				handshake(t, a, b)
				b.Forget(a.Public())
			}
		})
	}
	wg.Wait()
	if n := len(b.statics.of); n != 0 {
		t.Errorf("%d have a place", n)
	}
}
