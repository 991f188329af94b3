package wire

const (
	windowBlocks = 128 // a power of two: a block's place is its number modulo this

	// WindowSize is how many counters, the newest among them, a Window tells apart. Older ones are refused.
	// It is a block less than the bits there are, as the newest block is only partly used.
	WindowSize = (windowBlocks - 1) * 64
)

// A Window remembers which counters of one direction of one session were seen (§9), in
// the shape of RFC 6479: a ring of bits that is moved on a block at a time, never shifted.
// The zero Window has seen none.
//
// It has no lock. Whoever opens packets of the session owns it, one goroutine at a time; those that
// share it take their lock once for all packets of a batch, after opening them.
type Window struct {
	next uint64 // one more than the greatest counter seen
	seen [windowBlocks]uint64
}

// Next returns one more than the greatest counter accepted, 0 for none. A counter that Accept takes and
// that was not below Next is the newest, which is what may move a remote's address (§19).
func (w *Window) Next() uint64 { return w.next }

// Accept reports whether counter was not seen before, and is not too old to tell, and marks it seen.
// Call it for what Open authenticated only.
func (w *Window) Accept(counter uint64) bool {
	if counter >= RejectAfterPackets {
		return false
	}
	block := counter / 64
	if counter >= w.next {
		var top uint64 // the block of the greatest counter seen
		if w.next > 0 {
			top = (w.next - 1) / 64
		}
		for i := range min(block-top, windowBlocks) {
			w.seen[(top+1+i)%windowBlocks] = 0
		}
		w.next = counter + 1
	} else if w.next-counter > WindowSize {
		return false
	}
	bit := uint64(1) << (counter % 64)
	word := &w.seen[block%windowBlocks]
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}
