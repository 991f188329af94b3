package wire

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// handshakes are those between two peers, in every state: messages made and not delivered, initiations that wait, requests not
// answered, keys.
type handshakes struct {
	t        *testing.T
	locals   [2]*Local
	cookies  [2]*Cookie
	jars     [2]*CookieJar
	now      time.Time
	open     []*attempt
	messages [][]byte // all there ever were

	last     [2]stamped   // what each end's cookie stamped last
	cookieAt [2]time.Time // when that cookie came; zero: never
}

type stamped struct {
	*attempt
	told bool // by a cookie reply
}

// An attempt is one initiation and what came of it.
type attempt struct {
	from       int
	state      *Initiation
	initiation []byte
	request    *Request
	response   []byte
	theirs     Keys // of who answered
	ended      bool // finished or wiped
}

// step does what two bytes say, and checks what comes of it.
func (h *handshakes) step(what, how byte) {
	t := h.t
	from := int(how & 1)
	to := 1 - from
	var a *attempt
	if len(h.open) > 0 {
		a = h.open[int(how>>1)%len(h.open)]
	}
	switch what % 9 {
	case 0: // begin
		if len(h.open) == 8 {
			return
		}
		h.now = h.now.Add(time.Millisecond)
		i, msg, err := h.locals[from].Initiate(nil, h.locals[to].Public(), PresharedKey{}, Index(len(h.messages)), h.now, make([]byte, how%3))
		if err != nil {
			t.Fatal(err)
		}
		stampedBy := h.cookies[from].Stamp(msg, h.now)
		if fresh := !h.cookieAt[from].IsZero() && h.now.Sub(h.cookieAt[from]) < CookieLife; stampedBy != fresh || fresh != h.jars[to].Check(msg, here, h.now) {
			t.Fatalf("cookie of %v at %v: stamped %v", h.cookieAt[from], h.now, stampedBy)
		}
		h.open = append(h.open, &attempt{from: from, state: i, initiation: msg})
		h.last[from] = stamped{attempt: h.open[len(h.open)-1]}
		h.messages = append(h.messages, msg)
	case 1: // deliver it
		if a == nil {
			return
		}
		r, err := h.locals[1-a.from].ReadInitiation(a.initiation)
		if err != nil || r.Remote != h.locals[a.from].Public() {
			t.Fatalf("a true initiation: %v", err)
		}
		if a.request == nil {
			a.request = r
		}
		if r, err := h.locals[a.from].ReadInitiation(a.initiation); !errors.Is(err, ErrMAC1) || r != nil {
			t.Fatalf("an initiation came back to who made it: %v", err)
		}
	case 2: // answer
		if a == nil || a.request == nil {
			return
		}
		msg, keys, err := a.request.Respond(nil, PresharedKey{}, Index(1000+len(h.messages)))
		if (err != nil) != (a.response != nil) {
			t.Fatalf("answered before: %v, now %v", a.response != nil, err)
		}
		if err == nil {
			a.response, a.theirs = msg, keys
			h.messages = append(h.messages, msg)
		} else if !errors.Is(err, ErrUsed) {
			t.Fatal(err)
		}
	case 3: // deliver the answer
		if a == nil || a.response == nil {
			return
		}
		keys, err := a.state.Finish(a.response)
		if a.ended {
			if !errors.Is(err, ErrUsed) {
				t.Fatalf("finished twice: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatalf("the true response: %v", err)
		}
		a.ended = true
		if keys.Send != a.theirs.Receive || keys.Receive != a.theirs.Send || keys.Send == keys.Receive ||
			keys.LocalIndex != a.theirs.RemoteIndex || keys.RemoteIndex != a.theirs.LocalIndex {
			t.Fatal("the two ends have different keys, or one key for both directions")
		}
		for _, b := range h.open {
			if b != a && b.response != nil && (b.theirs.Send == keys.Send || b.theirs.Send == keys.Receive) {
				t.Fatal("two handshakes made one key")
			}
		}
	case 4, 5: // any message, perhaps changed, to whoever
		if len(h.messages) == 0 {
			return
		}
		msg := bytes.Clone(h.messages[int(how>>1)%len(h.messages)])
		if what%9 == 5 {
			msg[int(how)*11%len(msg)] ^= 1 << (how % 8)
			if what >= 128 && carriesMACs(msg) {
				msg = resign(msg, h.locals[to].Public())
			}
		}
		r, err := h.locals[to].ReadInitiation(msg)
		if err == nil && r.Remote != h.locals[from].Public() {
			t.Fatal("an initiation of nobody was taken")
		}
		for _, b := range h.open {
			if keys, err := b.state.Finish(msg); err == nil {
				if b.ended || b.response == nil || !bytes.Equal(msg[12:60], b.response[12:60]) || keys.Send != b.theirs.Receive {
					t.Fatal("a response to another initiation, or a forged one, was taken")
				}
				b.ended = true
			}
		}
	case 6: // give up
		if a != nil {
			a.state.Wipe()
			a.ended = true
		}
	case 7: // a cookie in answer to an initiation, however old
		if a == nil {
			return
		}
		reply, err := h.jars[1-a.from].AppendReply(nil, nil, a.initiation, here, h.now)
		if err != nil {
			t.Fatal(err)
		}
		last := h.last[a.from]
		if err := h.cookies[a.from].Open(reply, h.now); (err == nil) != (a == last.attempt && !last.told) {
			t.Fatalf("a cookie for the last initiation: %v, for one that was told already: %v; %v", a == last.attempt, last.told, err)
		} else if err == nil {
			h.last[a.from].told, h.cookieAt[a.from] = true, h.now
		}
	case 8: // time
		h.now = h.now.Add(time.Duration(how) * time.Second)
	}
}

// FuzzHandshakes takes its input for what happens to handshakes between two peers: begun, delivered late or to another, changed, answered
// twice, given up. A forgery ends nothing: each that was answered finishes when its true response comes.
func FuzzHandshakes(f *testing.F) {
	f.Add([]byte("\x00\x00\x01\x00\x02\x00\x03\x00\x03\x00\x02\x00"))         // one, answered and finished twice
	f.Add([]byte("\x00\x00\x00\x01\x01\x00\x02\x00\x01\x03\x02\x03\x03\x03")) // both at once
	f.Add([]byte("\x00\x00\x01\x00\x02\x00\x05\x03\x85\x02\x04\x03\x03\x00")) // forged responses first
	f.Add([]byte("\x00\x00\x07\x00\x00\x00\x07\x00\x08\xff\x00\x00"))         // cookies
	f.Add([]byte("\x00\x00\x01\x00\x02\x00\x06\x00\x03\x00"))                 // given up, and then answered
	const steps = 24
	f.Fuzz(func(t *testing.T, script []byte) {
		h := &handshakes{t: t, now: start}
		for i := range h.locals {
			h.locals[i] = newTestLocal(t, byte(i+1))
		}
		for i := range h.locals {
			h.cookies[i], h.jars[i] = NewCookie(h.locals[1-i].Public()), NewCookieJar(h.locals[i])
		}
		for i := 0; i+1 < len(script) && i < 2*steps; i += 2 {
			h.step(script[i], script[i+1])
		}
		for _, a := range h.open {
			if a.ended || a.response == nil {
				continue
			}
			if keys, err := a.state.Finish(a.response); err != nil || keys.Send != a.theirs.Receive {
				t.Fatalf("after all that, the true response: %v", err)
			}
		}
	})
}
