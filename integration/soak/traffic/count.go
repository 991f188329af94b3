package traffic

import (
	"sync/atomic"
	"time"
)

// Counts is what an agent has done.
type Counts struct {
	Streams, StreamBytes   uint64 // dialled; received and right
	Requests, RequestBytes uint64 // answered rightly; both ways
	Datagrams, Returned    uint64
	Calm, CalmLost         uint64 // of the datagrams, sent while nothing was done to the network; of those, not returned
	Pings, Answered        uint64
	Stood                  time.Duration // the longest that a stream received nothing and then went on
}

// counters is Counts being counted.
type counters struct {
	Streams, StreamBytes, Requests, RequestBytes, Datagrams, Returned, Calm, CalmLost, Pings, Answered atomic.Uint64

	stood atomic.Int64
}

// moved notes n bytes that came by a stream, after it had stood still for some time.
func (c *counters) moved(n int, stood time.Duration) {
	c.StreamBytes.Add(uint64(n))
	for {
		longest := c.stood.Load()
		if int64(stood) <= longest || c.stood.CompareAndSwap(longest, int64(stood)) {
			return
		}
	}
}

func (c *counters) read() Counts {
	return Counts{
		Streams: c.Streams.Load(), StreamBytes: c.StreamBytes.Load(),
		Requests: c.Requests.Load(), RequestBytes: c.RequestBytes.Load(),
		Datagrams: c.Datagrams.Load(), Returned: c.Returned.Load(),
		Calm: c.Calm.Load(), CalmLost: c.CalmLost.Load(),
		Pings: c.Pings.Load(), Answered: c.Answered.Load(),
		Stood: time.Duration(c.stood.Load()),
	}
}

// Plus adds up; of how long streams stood still it is the longest.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		Streams: c.Streams + d.Streams, StreamBytes: c.StreamBytes + d.StreamBytes,
		Requests: c.Requests + d.Requests, RequestBytes: c.RequestBytes + d.RequestBytes,
		Datagrams: c.Datagrams + d.Datagrams, Returned: c.Returned + d.Returned,
		Calm: c.Calm + d.Calm, CalmLost: c.CalmLost + d.CalmLost,
		Pings: c.Pings + d.Pings, Answered: c.Answered + d.Answered,
		Stood: max(c.Stood, d.Stood),
	}
}

// calmness is an epoch: even while something is being done to the network, odd while nothing is.
type calmness struct{ atomic.Uint64 }

type epoch uint64

func (e epoch) quiet() bool { return e%2 == 1 }

func (c *calmness) Load() epoch { return epoch(c.Uint64.Load()) }

func (c *calmness) set(calm bool) {
	if c.Load().quiet() != calm {
		c.Add(1)
	}
}
