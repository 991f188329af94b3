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
// They are known by two bits of one word of many, so that a flood takes 256 kB and no more. Of a strange address it is said that it
// has asked before as often as those bits are others': 1 in 25 beside a flood of 20,000 a second, 4 in 5 beside one of 200,000.
type askers struct {
	seed  maphash.Seed
	words *[askerWords][2]uint64 // nil until somebody has asked
	newer int                    // which of the two is of who asked since; the other, of who did in the askedFor before it
	since time.Time
}

const (
	// askedFor is how long an address is known at least: until who waits longest asks again.
	askedFor = lastRetry + lastRetry/3

	askerWords = 1 << 14
)

// again notes that a asks, and reports whether it did before.
func (k *askers) again(a netip.AddrPort, now time.Time) bool {
	if k.words == nil {
		k.seed, k.since = maphash.MakeSeed(), now
		k.words = new([askerWords][2]uint64)
	}
	if age := now.Sub(k.since); age >= 2*askedFor {
		clear(k.words[:])
		k.since = now
	} else if age >= askedFor {
		k.newer ^= 1
		for i := range k.words {
			k.words[i][k.newer] = 0
		}
		k.since = now
	}
	ip := a.Addr().As16()
	var id [18]byte
	binary.BigEndian.PutUint16(id[copy(id[:], ip[:]):], a.Port())
	h := maphash.Bytes(k.seed, id[:])
	word := &k.words[h%askerWords]
	bits := uint64(1)<<(h>>32%64) | uint64(1)<<(h>>40%64)
	seen := (word[0]|word[1])&bits == bits
	word[k.newer] |= bits
	return seen
}
