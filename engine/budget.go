package engine

import (
	"net/netip"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// A budget is a number of handshakes, of a size and refilled one by one. The zero budget is full.
type budget struct {
	spent float64
	at    time.Time
}

func (b *budget) take(now time.Time, refill time.Duration, size float64) bool {
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-float64(now.Sub(b.at))/float64(refill))
	}
	b.at = now
	if b.spent > size-1 {
		return false
	}
	b.spent++
	return true
}

func (b *budget) giveBack() { b.spent = max(0, b.spent-1) }

// budgets are those of addresses that have shown a cookie; an address that has not may be forged, and
// must not spend its owner's. Who has one address of IPv6 has all of its /64, so these share one. When there are too many, all
// are forgotten.
type budgets map[netip.Addr]*budget

const maxBudgets = 4096

func (m budgets) take(a netip.Addr, now time.Time) bool {
	if a = a.Unmap(); a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	b := m[a]
	if b == nil {
		if len(m) >= maxBudgets {
			clear(m)
		}
		b = new(budget)
		m[a] = b
	}
	return b.take(now, wire.Cooldown, wire.CooldownBurst)
}
