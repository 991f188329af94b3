package engine

import (
	"time"

	"github.com/adit-overlay/adit/wire"
)

// The inbox is where the way of packets leaves what control has to deal with: handshakes, control
// messages, notices. One goroutine serves it, so that no flood of them holds up data; its queues are
// bounded, and handshakes, which strangers can send, cannot push out the rest.
type inbox struct {
	local      *wire.Local
	handshakes chan letter
	others     chan letter
	doorkeeper doorkeeper
	taken      lastTaken
}

// A letter is a copy of a message and where it came from.
type letter struct {
	msg      []byte
	from     path
	paid     bool      // for handshakes: took from the budget of the unproven
	received time.Time // for handshakes: which may lie here until what came later is served
	remote   *Remote   // for control messages: whose it is
	sealed   *session  // and by which session it came
}

const (
	handshakeQueue = 256
	otherQueue     = 1024

	// othersInARow is how many of the rest a handshake waits for at most: there may be more of them all the time.
	othersInARow = 64

	// A remote may send so many control messages a second, and so many at once: at a relay, all that it may ask (§13), and
	// some more. A relay of ours tells us of every member that wants to talk with us, so it has no limit.
	controlsPerSecond = 200
	controlsAtOnce    = 1200
)

func (b *inbox) init(local *wire.Local) {
	b.local = local
	b.handshakes = make(chan letter, handshakeQueue)
	b.others = make(chan letter, otherQueue)
	b.doorkeeper.init(local)
}

// post queues anything but an initiation. msg is borrowed.
func (e *Engine) post(l letter, reason Drop) {
	l.msg = append([]byte(nil), l.msg...)
	select {
	case e.inbox.others <- l:
	default:
		e.drop(reason)
	}
}

// postControl queues a control message, which came sealed. One remote that sends them without end has its share, and takes nobody
// else's place in the queue. l.msg is borrowed.
func (e *Engine) postControl(l letter, now time.Time) {
	if r := l.remote; !r.relay && !r.controls.AllowN(now, 1) {
		e.drop(DropControlRate)
		return
	}
	e.post(l, DropControl)
}

// serveInbox deals with what comes in, until Close. Handshakes, which cost more, wait for the rest, but not for ever.
func (e *Engine) serveInbox() {
	b := &e.inbox
	for row := 0; ; {
		if row < othersInARow {
			select {
			case l := <-b.others:
				e.serve(l, time.Now())
				row++
				continue
			default:
			}
		}
		row = 0
		select {
		case l := <-b.others:
			e.serve(l, time.Now())
		case l := <-b.handshakes:
			e.serveInitiation(l, time.Now())
		case <-e.ctx.Done():
			return
		}
	}
}

// serve deals with one message that is not an initiation.
func (e *Engine) serve(l letter, now time.Time) {
	if l.remote != nil {
		e.serveControl(l, now)
		return
	}
	switch wire.KindOf(l.msg) {
	case wire.KindResponse, wire.KindCookieReply:
		index, _ := wire.ReceiverOf(l.msg)
		r := e.indexes.initiation(index)
		switch {
		case r == nil:
			e.drop(DropUnexpected)
		case wire.KindOf(l.msg) == wire.KindResponse:
			r.receiveResponse(l.msg, l.from, now)
		default:
			r.receiveCookie(l.msg, now)
		}
	case wire.KindNotice:
		index, _ := wire.ParseNotice(l.msg)
		if r := e.sealingFor(index, l.from); r != nil {
			r.receiveNotice(now)
		} else {
			e.drop(DropUnexpected)
		}
	case wire.KindCircuitNotice:
		code, id, _ := wire.ParseCircuitNotice(l.msg)
		e.circuitNotice(code, id, now)
	}
}

// sealingFor returns the remote to which our data carries that index, on that path.
func (e *Engine) sealingFor(index wire.Index, from path) *Remote {
	for _, r := range e.Remotes() {
		if s := r.current.Load(); s == nil || s.peer != index {
			continue
		}
		if p := r.path.Load(); p != nil && *p == from {
			return r
		}
	}
	return nil
}

// serveControl deals with a control message (§13), which came sealed.
func (e *Engine) serveControl(l letter, now time.Time) {
	m, err := wire.ParseControl(l.msg)
	if err != nil {
		e.drop(DropControl)
		return
	}
	r := l.remote
	switch m := m.(type) {
	case wire.Probe:
		_, addr, _ := l.from.under()
		r.sendControlBy(l.sealed, l.from, wire.ProbeReply{Token: m.Token, Observed: addr}, now)
	case wire.ProbeReply:
		r.receiveProbeReply(m, l.from, now)
	case wire.LookupReply:
		e.requests.answer(r, m.ID, m)
	case wire.OpenCircuitReply:
		e.requests.answer(r, m.ID, m)
	case wire.CircuitOffered:
		if !r.relay {
			e.drop(DropControl)
			return
		}
		e.circuitOffered(r, m, now)
	case wire.CloseCircuit:
		if e.cfg.Serve != nil {
			e.cfg.Serve(r, m)
		} else {
			e.circuitClosed(r, m.Circuit, now)
		}
	default:
		if e.cfg.Serve == nil {
			e.drop(DropControl)
			return
		}
		if reply := e.cfg.Serve(r, m); reply != nil {
			r.Send(reply)
		}
	}
}
