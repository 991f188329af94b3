package engine

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"time"
)

// Askers are addresses that sent an initiation without a cookie, under load. Forged sources are as good as never the same
// twice within seconds, and who is true asks again: so a flood that shows no face is told little, and who is true in it soon.
//
// They are known by one bit of many, so that a flood takes 256 kB and no more. Of a strange address it is said that it has asked
// before as often as that bit is another's: 1 in 9 beside a flood of 20,000 a second, 2 in 3 beside one of 200,000.
type askers struct {
	seed          maphash.Seed
	newer, before *[askerBits / 64]uint64 // who asked since, and in the askedFor before it; nil until somebody has
	since         time.Time
}

const (
	// askedFor is how long an address is known at least: until who waits longest asks again.
	askedFor = lastRetry + lastRetry/3

	askerBits = 1 << 20
)

// again notes that a asks, and reports whether it did before.
func (k *askers) again(a netip.AddrPort, now time.Time) bool {
	if k.newer == nil {
		k.seed, k.since = maphash.MakeSeed(), now
		k.newer, k.before = new([askerBits / 64]uint64), new([askerBits / 64]uint64)
	}
	if age := now.Sub(k.since); age >= askedFor {
		k.newer, k.before, k.since = k.before, k.newer, now
		clear(k.newer[:])
		if age >= 2*askedFor {
			clear(k.before[:])
		}
	}
	ip := a.Addr().As16()
	var id [18]byte
	binary.BigEndian.PutUint16(id[copy(id[:], ip[:]):], a.Port())
	h := maphash.Bytes(k.seed, id[:]) % askerBits
	word, bit := h/64, uint64(1)<<(h%64)
	seen := (k.newer[word]|k.before[word])&bit != 0
	k.newer[word] |= bit
	return seen
}
