package netstack

import "time"

// Close ends every connection, listener and dial, and returns when all goroutines have ended. The
// peers' ends are reset: Read still returns those last packets before net.ErrClosed. There may be more of them
// than the queue holds, so that the device should be read until then; if it is not, they are dropped after
// a moment's wait. It is always nil.
func (s *Stack) Close() error {
	s.gate.Lock()
	first := !s.closed
	s.closed = true
	s.gate.Unlock()
	if !first {
		<-s.done
		return nil
	}
	s.begin()
	if s.forwards != nil {
		s.forwards.end()
	}
	s.settle()
	s.part()
	s.gate.Lock()
	s.deaf = true
	s.gate.Unlock()
	if s.forwards != nil {
		s.forwards.close()
	}
	s.ip.close()
	s.loop.close()
	s.queue.close()
	close(s.done)
	return nil
}

// Bounds of the two waits of Close.
const (
	settleTime = 200 * time.Millisecond // for handshakes that others began

	// How long a stack answers what comes for connections that were reset: until there was nothing for that long, and for a round
	// trip and as long as the far end waits before it sends again. After three times that it ends in any case.
	partTime  = 10 * time.Millisecond
	mostAgain = 490 * time.Millisecond // at most, for the latter two
)

// settle waits for handshakes that others began, while packets still come in. The far end takes a connection for
// made before its last handshake packet is here, and until it is the stack does not reset it: the far end
// would learn nothing of its end.
func (s *Stack) settle() {
	await(s.settleTime, func() bool {
		return !s.ip.handshaking() && (s.forwards == nil || len(s.forwards.handshakes()) == 0)
	})
}

// part resets the connections. A reset may be lost; and where something that was sent before it is, or the far window was used
// up, gVisor's bears another number than the far end expects, which then drops it. But that acknowledges, or sends again, and a stack
// that still listens answers with a reset that it takes. Otherwise it would go on for the minutes in which TCP gives up. Where nobody
// reads the device there is no use in that.
func (s *Stack) part() {
	stacks := []*ipStack{s.ip}
	if s.forwards != nil {
		stacks = append(stacks, s.forwards.ip)
	}
	var again time.Duration
	any := false
	for _, ip := range stacks {
		wait, some := ip.reset()
		again, any = max(again, wait), any || some
	}
	if !any {
		return
	}
	answers := func() (n uint64) {
		for _, ip := range stacks {
			n += ip.g.Stats().TCP.ResetsSent.Value()
		}
		return n
	}
	quiet := s.partTime + min(again, mostAgain)
	await(3*quiet, lull(quiet, answers, s.queue.abandoned))
}

// lull is over once count has stayed the same for some time, or when over says so.
func lull(quiet time.Duration, count func() uint64, over func() bool) func() bool {
	last, since := count(), time.Now()
	return func() bool {
		if n := count(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) >= quiet || over()
	}
}

// await returns when over says that it is, and after the time given at the latest.
func await(most time.Duration, over func() bool) {
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for late := time.After(most); !over(); {
		select {
		case <-late:
			return
		case <-look.C:
		}
	}
}
