package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// farFrom is the round-trip time from which on a connection needs more under way than the buffers of near ones
	// allow: with those, 2 MB, a line of 1.6 Gbit/s is full at this distance.
	farFrom = 10 * time.Millisecond

	// cubicFrom is the one from which on it uses Cubic, whose window grows by the clock. Reno's grows by round trips, and after
	// a loss faster than it should where segments are acknowledged one by one: once gVisor has counted a window of them, it takes
	// each of the next for another. At 20 ms that is half as fast again as Cubic where 1 % is lost by chance, but on a full line with a short queue it
	// loses by the hundred, and a quarter of the throughput. Further away Cubic is at least level everywhere.
	cubicFrom = 30 * time.Millisecond
)

// The most a connection's buffers grow to, each way; they grow as they are needed. The window is half of the receive
// buffer. A sender that was stopped goes on when half of its buffer is free, so that the other half is under way.
const (
	nearBuffer = 4 << 20
	farBuffer  = 8 << 20

	// A far end that sends and does not read, or a program, holds what the buffers of its connection hold, and may have many
	// connections. So where there are more than crowd, each doubling of their number halves the most, down to what still fills a
	// line of 50 Mbit/s at 10 ms.
	crowd       = 32
	leastBuffer = 128 << 10
)

// The least retransmission timeout of a connection. The stack's timeout comes down to the round-trip time and next to nothing. With a
// minimum near that, what is merely a moment late would be sent again, and the window begin anew: an eighth of the throughput at 20 ms
// and 1 % loss. The usual 200 ms would cost a sixth at 1 ms, where the timeout is the way out more often.
//
// In a crowd whose connections all begin to send, each one's first flight waits for those of the others, which no round trip before has
// shown. So each doubling of their number above crowd also doubles the least timeout of those that are made, up to what RFC 6298 asks
// of all. Otherwise thousands of busy connections would send again what only waits, and all would wait for that too.
const (
	leastTimeout        = 100 * time.Millisecond
	leastTimeoutInCrowd = time.Second
)

// timeoutAmong is the least timeout of a connection that is made when there are so many.
func timeoutAmong(conns int) time.Duration {
	least := leastTimeout
	for n := conns; n > crowd && least < leastTimeoutInCrowd; n = (n + 1) / 2 {
		least = min(2*least, leastTimeoutInCrowd)
	}
	return least
}

// mostBuffer is the most for each of so many connections, of which some are far.
func mostBuffer(conns, far int) int {
	most := nearBuffer
	if far > 0 {
		most = farBuffer
	}
	for n := conns; n > crowd && most > leastBuffer; n = (n + 1) / 2 {
		most /= 2
	}
	return most
}

// far adapts the stack to connections with far ends, and to their number. The limits of buffers are those of the whole stack, and
// large ones cost memory, and time in the cache, on connections that do not need them: so they are
// large only while there is a connection that does.
type far struct {
	mu         sync.Mutex
	conns, far int
	most       int           // of a buffer now; 0: as it was made
	timeout    time.Duration // the least of a connection made now; 0: as it was made
}

// adapt is for a connection just made, which has measured its round-trip time once, and sent nothing:
// changing the congestion control sets the window back to where it starts. It reports whether the connection is
// a far one, which leave is to be told.
func (f *far) adapt(s *Stack, ep tcpip.Endpoint) (isFar bool) {
	var info tcpip.TCPInfoOption
	if err := ep.GetSockOpt(&info); err == nil {
		isFar = info.RTT >= farFrom
		if info.RTT >= cubicFrom {
			cubic := tcpip.CongestionControlOption("cubic")
			ep.SetSockOpt(&cubic)
		}
	}
	f.count(s, isFar, 1)
	return isFar
}

// leave is for a connection that is closed.
func (f *far) leave(s *Stack, isFar bool) { f.count(s, isFar, -1) }

func (f *far) count(s *Stack, isFar bool, change int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns += change
	if isFar {
		f.far += change
	}
	if most := mostBuffer(f.conns, f.far); most != f.most {
		f.most = most
		s.setTCP(tcpBuffers(most)...)
	}
	if timeout := timeoutAmong(f.conns); timeout != f.timeout {
		f.timeout = timeout
		o := tcpip.TCPMinRTOOption(timeout)
		s.setTCP(&o)
	}
}

// setTCP sets options of TCP for all connections of s.
func (s *Stack) setTCP(options ...tcpip.SettableTransportProtocolOption) {
	for _, o := range options {
		s.ip.g.SetTransportProtocolOption(tcp.ProtocolNumber, o)
		if s.forwards != nil {
			s.forwards.ip.g.SetTransportProtocolOption(tcp.ProtocolNumber, o)
		}
	}
}

// tcpBuffers returns the options for buffers of at most so many bytes.
func tcpBuffers(most int) []tcpip.SettableTransportProtocolOption {
	const least = 4 << 10
	first := min(1<<20, most)
	return []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPSendBufferSizeRangeOption{Min: least, Default: first, Max: most},
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: least, Default: first, Max: most},
	}
}
