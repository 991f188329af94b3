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

// doublings is how often crowd is doubled until it holds so many connections.
func doublings(conns int) (n int) {
	for ; conns > crowd; conns = (conns + 1) / 2 {
		n++
	}
	return n
}

// timeoutAmong is the least timeout of a connection that is made when there are so many.
func timeoutAmong(conns int) time.Duration {
	return min(leastTimeout<<doublings(conns), leastTimeoutInCrowd)
}

// mostBuffer is the most for each of so many connections, of which some are far.
func mostBuffer(conns, far int) int {
	most := nearBuffer
	if far > 0 {
		most = farBuffer
	}
	return max(most>>doublings(conns), leastBuffer)
}

// tcpOptions returns how TCP is tuned. The choices were measured; TestFarLine and TestAnswerBesideStream hold what
// matters of them.
func tcpOptions() []tcpip.SettableTransportProtocolOption {
	sack := tcpip.TCPSACKEnabled(true)
	// No RACK, but RFC 6675: with RACK the stack also probes for lost tails, and puts the probe off whenever
	// a packet comes in. While the far end sends, what it lost of ours would never be repeated. Also, of a super-packet with a
	// hole the stack would repeat more than the hole, and run into its timeout at every second loss.
	recovery := tcpip.TCPRecovery(0)
	// For near connections; see cubicFrom.
	control := tcpip.CongestionControlOption("reno")
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	minRTO := tcpip.TCPMinRTOOption(leastTimeout)
	// The first round trip that is measured is the handshake's, which may have waited for a session, or for a line that was cut; and the
	// stack does not measure while no more than one segment is under way. So a quiet connection over a line of
	// a millisecond could wait half a minute before it repeats what was lost. This is as far as lines go that a
	// session comes about over. With so many retransmissions a far end that is gone is noticed in four minutes.
	maxRTO := tcpip.TCPMaxRTOOption(4 * time.Second)
	retries := tcpip.TCPMaxRetriesOption(64)
	// What the network of an overlay can still hold back is seconds old, not minutes. A client that
	// makes thousands of connections a second would run out of ports with more.
	timeWait := tcpip.TCPTimeWaitTimeoutOption(5 * time.Second)
	reuse := tcpip.TCPTimeWaitReuseGlobal
	// Linux's tcp_fin_timeout. It frees a closed connection whose far end never closes.
	linger := tcpip.TCPLingerTimeoutOption(60 * time.Second)
	return append(tcpBuffers(nearBuffer),
		&sack, &recovery, &control, &moderate, &minRTO, &maxRTO, &retries, &timeWait, &reuse, &linger)
}

// tuning adapts the stack to connections with far ends, and to their number. The limits of buffers are those of the whole stack, and
// large ones cost memory, and time in the cache, on connections that do not need them: so they are
// large only while there is a connection that does.
type tuning struct {
	mu         sync.Mutex
	conns, far int
}

// adapt is for a connection just made, which has measured its round-trip time once, and sent nothing:
// changing the congestion control sets the window back to where it starts. It reports whether the connection is
// a far one, which leave is to be told.
func (t *tuning) adapt(s *Stack, ep tcpip.Endpoint) (isFar bool) {
	var info tcpip.TCPInfoOption
	if err := ep.GetSockOpt(&info); err == nil {
		isFar = info.RTT >= farFrom
		if info.RTT >= cubicFrom {
			cubic := tcpip.CongestionControlOption("cubic")
			ep.SetSockOpt(&cubic)
		}
	}
	t.count(s, isFar, 1)
	return isFar
}

// leave is for a connection that is closed.
func (t *tuning) leave(s *Stack, isFar bool) { t.count(s, isFar, -1) }

func (t *tuning) count(s *Stack, isFar bool, change int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	most, timeout := mostBuffer(t.conns, t.far), timeoutAmong(t.conns)
	t.conns += change
	if isFar {
		t.far += change
	}
	if now := mostBuffer(t.conns, t.far); now != most {
		s.setTCP(tcpBuffers(now)...)
	}
	if now := timeoutAmong(t.conns); now != timeout {
		s.setTCP(new(tcpip.TCPMinRTOOption(now)))
	}
}

// setTCP sets options of TCP in both stacks that s may have.
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
