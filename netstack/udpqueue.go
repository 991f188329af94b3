package netstack

import (
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
)

const (
	// udpQueueBytes bounds what one socket holds for its reader.
	udpQueueBytes = 1 << 20

	// udpOverhead is what a held datagram costs beyond its payload.
	udpOverhead = 256
)

// udpQueue holds the datagrams of one socket until they are read. The stack has such a queue too, but
// counts payload only: a flood of empty datagrams would fill memory without end. So this one is
// filled as they arrive, and counts each for what it costs.
type udpQueue struct {
	filling sync.Mutex // held while datagrams are moved here, so that they keep their order

	mu    sync.Mutex
	held  []udpDatagram // from first on
	first int
	cost  int
	final tcpip.Error // after what is held: no more will come
}

// udpDatagram is a datagram, or an error that came in its place.
type udpDatagram struct {
	b    []byte
	from netip.AddrPort
	err  tcpip.Error
}

// udpScratch is what datagrams are read into; their length is only known afterwards.
type udpScratch struct {
	room [maxDatagram]byte
	w    tcpip.SliceWriter // kept here because it is passed by interface
}

var udpScratches = sync.Pool{New: func() any { return new(udpScratch) }}

// fill moves what ep holds here; what finds no room is dropped. It returns how many were.
func (q *udpQueue) fill(ep tcpip.Endpoint) (dropped int) {
	q.filling.Lock()
	defer q.filling.Unlock()
	scratch := udpScratches.Get().(*udpScratch)
	defer udpScratches.Put(scratch)
	for {
		scratch.w = scratch.room[:]
		res, err := ep.Read(&scratch.w, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch err.(type) {
		case nil:
			if !q.push(scratch.room[:res.Count], addrPortOf(res.RemoteAddr, 0)) {
				dropped++
			}
		case *tcpip.ErrWouldBlock:
			return dropped
		case *tcpip.ErrClosedForReceive, *tcpip.ErrInvalidEndpointState:
			q.mu.Lock()
			q.final = err
			q.mu.Unlock()
			return dropped
		default:
			// The stack forgets an error once it was told.
			q.mu.Lock()
			if q.cost+udpOverhead <= udpQueueBytes {
				q.cost += udpOverhead
				q.held = append(q.held, udpDatagram{err: err})
			}
			q.mu.Unlock()
		}
	}
}

func (q *udpQueue) push(b []byte, from netip.AddrPort) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	cost := len(b) + udpOverhead
	if q.cost+cost > udpQueueBytes {
		return false
	}
	q.cost += cost
	q.held = append(q.held, udpDatagram{b: append([]byte(nil), b...), from: from})
	return true
}

// pop returns the oldest datagram, or the final error, or false if there is neither.
func (q *udpQueue) pop() (udpDatagram, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first == len(q.held) {
		return udpDatagram{err: q.final}, q.final != nil
	}
	d := q.held[q.first]
	q.held[q.first] = udpDatagram{}
	q.first++
	q.cost -= len(d.b) + udpOverhead
	if q.first == len(q.held) {
		q.held, q.first = q.held[:0], 0
	} else if q.first >= 1024 && q.first*2 >= len(q.held) {
		q.held = append(q.held[:0], q.held[q.first:]...)
		q.first = 0
	}
	return d, true
}
