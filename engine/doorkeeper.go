package engine

import (
	"net/netip"
	"sync"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// The doorkeeper says which initiations are worth a Diffie-Hellman. All are while there is no load; then those whose
// senders have shown, by a cookie, that they receive where they say they are, and none of them too often (§16).
type doorkeeper struct {
	mu      sync.Mutex // guards what follows
	jar     *wire.CookieJar
	budgets budgets

	// unproven is what strangers may cost us without a cookie. A handshake that comes to something gives back what it
	// took: members are free to come, however many at once.
	unproven budget

	// What it may cost to tell them of cookies, the first time they ask and when they ask again.
	askers    askers
	first     budget
	following budget

	told time.Time // when the log last had a line about it
}

const (
	// underLoad is how many handshakes may wait before an initiation has to show a cookie.
	underLoad = 32

	// So many handshakes may come to nothing at once, and one more each refill. One costs a processor a tenth
	// of a millisecond, so the refills come to half a hundredth of its time.
	unprovenBurst  = 64
	unprovenRefill = 20 * time.Millisecond

	// So many cookies go out at once, and one more each refill: 1,000 a second to who asks for the first time, and 10,000 to who
	// asks again, of each what a fifth or a tenth of a second brings at once. One costs ten microseconds and more, nearly all of it
	// the system's: no flood takes more by them than a seventh of a processor from the data beside it, and one from forged sources
	// a sixth of that.
	firstBurst      = 200
	firstRefill     = time.Second / 1_000
	followingBurst  = 1000
	followingRefill = time.Second / 10_000

	// tellLoad is how often the log says that there is load, while there is.
	tellLoad = time.Minute
)

func (k *doorkeeper) init(local *wire.Local) {
	k.jar = wire.NewCookieJar(local)
	k.budgets = make(budgets)
}

// pay reports whether an initiation needs no cookie, when so many wait.
func (k *doorkeeper) pay(waiting int, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return waiting < underLoad && k.unproven.take(now, unprovenRefill, unprovenBurst)
}

// refund is for a handshake that came to something.
func (k *doorkeeper) refund(l letter) {
	if l.paid {
		k.mu.Lock()
		k.unproven.giveBack()
		k.mu.Unlock()
	}
}

// tells reports whether who is at an address, and has not shown that it is, is to have a cookie.
func (k *doorkeeper) tells(a netip.AddrPort, now time.Time) bool {
	if k.askers.again(a, now) {
		return k.following.take(now, followingRefill, followingBurst)
	}
	return k.first.take(now, firstRefill, firstBurst)
}

// initiation is the cheap filter before the queue of handshakes. msg is borrowed.
func (in *inbound) initiation(msg []byte, from path) {
	e, b := in.e, &in.e.inbox
	if !b.local.CheckMAC1(msg) {
		e.drop(DropMAC1)
		return
	}
	paid := b.doorkeeper.pay(len(b.handshakes), in.now)
	if !paid && !in.proven(msg, from) {
		return
	}
	select {
	case b.handshakes <- letter{msg: append([]byte(nil), msg...), from: from, paid: paid, received: in.now}:
	default:
		e.drop(DropHandshakeQueue)
	}
}

// proven reports whether the sender has shown that it receives where it says it is, and has not
// sent too much from there. To one that has not, a cookie goes.
func (in *inbound) proven(msg []byte, from path) bool {
	_, addr, ok := from.under()
	if !ok {
		in.e.drop(DropNoPath)
		return false
	}
	e, k := in.e, &in.e.inbox.doorkeeper
	k.mu.Lock()
	shown := k.jar.Check(msg, addr, in.now)
	// All who come by one relay share its address; their circuits are the relay's to limit.
	within := shown && (from.relay != nil || !addr.IsValid() || k.budgets.take(addr.Addr(), in.now))
	var cookie []byte
	tell := false
	if !shown {
		if k.tells(addr, in.now) {
			cookie, _ = k.jar.AppendReply(in.replies.room(), e.cfg.Random, msg, addr, in.now) // none without randomness
		}
		if tell = in.now.Sub(k.told) >= tellLoad; tell {
			k.told = in.now
		}
	}
	k.mu.Unlock()
	if tell {
		e.log.Warn("too many handshakes: who begins one has to show first that it is where it says",
			"unknown_key", e.Dropped(DropUnknownKey), "forged", e.Dropped(DropHandshakeForged), "replayed", e.Dropped(DropReplayedHandshake),
			"do", "nothing, unless members do not get in: then see whether their keys are known here")
	}
	switch {
	case within:
		return true
	case shown:
		e.drop(DropCooldown)
	default:
		e.drop(DropCookie)
		if cookie != nil {
			in.replies.add(cookie, from)
		}
	}
	return false
}
