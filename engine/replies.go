package engine

import (
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Replies are what strangers are told: cookies and notices. A flood has many of them, so they are made in place, and those of
// a batch of datagrams go out together. They are used by the goroutine that received what they answer.
type replies struct {
	e   *Engine
	out []underlay.Message // of a capacity that stays
	buf []byte             // what they consist of; the same
}

const (
	maxReplies  = 64
	maxReplyLen = wire.CookieReplyLen
)

func newReplies(e *Engine) replies {
	return replies{e: e, out: make([]underlay.Message, 0, maxReplies), buf: make([]byte, maxReplies*maxReplyLen)}
}

// room is where to append the next reply, of at most maxReplyLen bytes.
func (a *replies) room() []byte {
	at := len(a.out) * maxReplyLen
	return a.buf[at : at : at+maxReplyLen]
}

// add sends what was appended to room, to where the question came from: soon, if that is directly.
func (a *replies) add(b []byte, to path) {
	if to.relay != nil {
		a.e.send(to, b)
		return
	}
	a.out = append(a.out, underlay.Message{Buf: b, Seg: len(b), Addr: to.addr})
	if len(a.out) == maxReplies {
		a.flush(to.carrier)
	}
}

// flush sends what waits, by the carrier that the batch came by.
func (a *replies) flush(c underlay.Carrier) {
	if len(a.out) == 0 {
		return
	}
	if err := c.Send(a.out); err != nil {
		a.e.drop(DropSend)
	}
	a.out = a.out[:0]
}
