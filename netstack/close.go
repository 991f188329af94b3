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

	// To answer what comes for the connections that were reset: that long, and two round trips.
	partTime    = 10 * time.Millisecond
	mostParting = 190 * time.Millisecond // at most, for the round trips
)

// settle waits for handshakes that others began, while packets still come in. The far end takes a connection for
// made before its last handshake packet is here, and until it is the stack does not reset it: the far end
// would learn nothing of its end.
func (s *Stack) settle() {
	await(s.settleTime, func() bool {
		return !s.ip.handshaking() && (s.forwards == nil || len(s.forwards.handshakes()) == 0)
	})
}

// part resets the connections. A reset may be lost; and when the far window was used up, gVisor's bears a number a few bytes
// short of what was sent, and the far end drops it. But that acknowledges, or sends, and a stack that still listens answers
// with a reset that it takes. Where nobody reads the device there is no use in that.
func (s *Stack) part() {
	rtt, any := s.ip.reset()
	if s.forwards != nil {
		far, more := s.forwards.ip.reset()
		rtt, any = max(rtt, far), any || more
	}
	if any {
		await(s.partTime+min(2*rtt, mostParting), s.queue.abandoned)
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
