package wire

import (
	"errors"
	"testing"
	"time"
)

// start is the time at which all tests begin.
var start = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

func newTestLocal(t testing.TB, seed byte) *Local {
	t.Helper()
	k, err := GeneratePrivateKey(newStream(seed))
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLocal(k)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHandshake(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	for name, psk := range map[string]PresharedKey{"without": {}, "with": {7}} {
		t.Run(name+" pre-shared key", func(t *testing.T) {
			ini, m1, err := a.Initiate(nil, b.Public(), psk, 11, start, []byte("cert"))
			if err != nil {
				t.Fatal(err)
			}
			req, err := b.ReadInitiation(m1)
			if err != nil {
				t.Fatal(err)
			}
			if req.Remote != a.Public() || req.RemoteIndex != 11 || req.Timestamp != TimestampAt(start) || string(req.Certificate) != "cert" {
				t.Fatalf("request %v %v %v %q", req.Remote, req.RemoteIndex, req.Timestamp, req.Certificate)
			}
			m2, kb, err := req.Respond(nil, psk, 22)
			if err != nil {
				t.Fatal(err)
			}
			if len(m2) > len(m1) || len(m2) != ResponseLen {
				t.Fatalf("response of %d bytes to %d", len(m2), len(m1))
			}
			ka, err := ini.Finish(m2)
			if err != nil {
				t.Fatal(err)
			}
			if ka.Send != kb.Receive || ka.Receive != kb.Send || ka.Send == ka.Receive {
				t.Fatal("keys do not match")
			}
			if ka.LocalIndex != 11 || ka.RemoteIndex != 22 || kb.LocalIndex != 22 || kb.RemoteIndex != 11 {
				t.Fatal("indexes do not match")
			}
			if _, err := ini.Finish(m2); !errors.Is(err, ErrUsed) {
				t.Fatalf("second Finish: %v", err)
			}
			if _, _, err := req.Respond(nil, psk, 23); !errors.Is(err, ErrUsed) {
				t.Fatalf("second Respond: %v", err)
			}
		})
	}
}
