package engine

// A turnstile lets several goroutines serve one source. They take batches from it one at a time, work on them side by
// side, and hand on what became of them in the order in which they were taken: nothing overtakes. There is no
// queue between them and no goroutine beside them; each takes its batch all the way.
//
// The channel holds one value while no batch is being taken: what tells that the batch taken last was
// handed on, nil if it was.
type turnstile chan (<-chan struct{})

func newTurnstile() turnstile {
	g := make(turnstile, 1)
	g <- nil
	return g
}

// A turn is the part of one goroutine: begin, take a batch, share if it is worth it, work, wait, hand on, end.
type turn struct {
	gate   turnstile
	before <-chan struct{} // tells once that the batch before was handed on; nil: it was
	shared bool            // the next batch may be, or was, taken by another

	// done tells whoever comes after a shared batch; it has room for one. There are two, used by turns: the other one
	// may still be waited at for the batch before. For the one before that nobody waits any more, or this
	// goroutine could not have ended the last.
	done, other chan struct{}
}

func (g turnstile) newTurn() *turn {
	return &turn{gate: g, done: make(chan struct{}, 1), other: make(chan struct{}, 1)}
}

// begin waits until a batch may be taken.
func (t *turn) begin() { t.before = <-t.gate }

// share lets the next goroutine take a batch while this one works on its own.
func (t *turn) share() {
	t.shared = true
	t.done, t.other = t.other, t.done
	t.gate <- t.done
}

// wait returns when all batches taken before were handed on. It may be called again.
func (t *turn) wait() {
	if t.before != nil {
		<-t.before
		t.before = nil
	}
}

// end says that the batch was handed on.
func (t *turn) end() {
	t.wait()
	if t.shared {
		t.shared = false
		t.done <- struct{}{}
		return
	}
	t.gate <- nil
}

// worthSharing is how many bytes of packets are work enough for the cost of waking another goroutine. Below
// it a lone packet goes its way as if there were one goroutine only.
const worthSharing = 16 << 10
