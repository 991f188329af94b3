//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/adit-overlay/adit/integration/bench/contestants"
	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/lab"
)

// Which way a stream goes, and by what.
const (
	up   = false // from A, who dials, to B
	down = true

	v4 = false
	v6 = true
)

// stream measures TCP at full speed: Gbit/s received, and seconds of processor time a gigabyte (10^9 bytes) received.
func stream(streams int, down, v6 bool) row {
	id, name := fmt.Sprintf("tcp%d", streams), fmt.Sprintf("TCP, %d streams", streams)
	if streams == 1 {
		name = "TCP, 1 stream"
	}
	if down {
		id, name = id+"-down", name+", to the dialler"
	}
	if v6 {
		id, name = id+"-v6", name+", IPv6"
	}
	return row{
		id: id,
		metrics: []metric{
			{Name: name, Unit: "Gbit/s", Better: more},
			{Name: name + ": CPU of both ends", Unit: "s/GB", Better: less},
			{Name: name + ": CPU of the relay", Unit: "s/GB", Better: less},
		},
		run: func(c *cell) ([]float64, error) {
			q := load.Stream{Host: c.pair.IPv4, Streams: streams, Duration: c.pace.stream, Down: down}
			if v6 {
				q.Host = c.pair.IPv6
			}
			var r load.StreamResult
			ends, relay, err := c.cost(func() error { return c.ask(q, &r) })
			if err != nil {
				return nil, err
			}
			gigabytes := float64(r.Bytes) / 1e9
			return []float64{gigabytes * 8 / q.Duration.Seconds(), ends / gigabytes, relay / gigabytes}, nil
		},
	}
}

// cost is what f costs the ends and the relay in seconds of processor time; none where there is no such process.
func (c *cell) cost(f func() error) (ends, relay float64, err error) {
	ends, relay = none(), none()
	before, err := c.spent()
	if err != nil {
		return ends, relay, err
	}
	if err := f(); err != nil {
		return ends, relay, err
	}
	after, err := c.spent()
	if len(c.pair.Ends) > 0 {
		ends = (after.ends - before.ends).Seconds()
	}
	if c.pair.Relay != nil {
		relay = (after.relay - before.relay).Seconds()
	}
	return ends, relay, err
}

type spent struct{ ends, relay time.Duration }

func (c *cell) spent() (s spent, err error) {
	if s.ends, err = stage.CPUTime(c.pair.Ends...); err == nil && c.pair.Relay != nil {
		s.relay, err = stage.CPUTime(c.pair.Relay)
	}
	return s, err
}

// far measures one stream over a line with this round-trip time and loss, the loss in each direction.
func far(rtt time.Duration, loss float64) row {
	name := fmt.Sprintf("%v RTT, %g %% lost", rtt, loss*100)
	return row{
		id: fmt.Sprintf("rtt%d-loss%g", rtt.Milliseconds(), loss*100),
		metrics: []metric{
			{Name: name, Unit: "Mbit/s", Better: more},
			{Name: name + ": longest gap", Unit: "ms", Better: less},
		},
		run: func(c *cell) ([]float64, error) {
			err := stage.Attempt(func() { c.pair.Wire.Set(lab.Impairment{Delay: rtt / 2, Loss: loss}) })
			if err != nil {
				return nil, err
			}
			defer c.pair.Wire.Set(lab.Impairment{})
			q := load.Stream{Host: c.pair.IPv4, Streams: 1, Duration: c.pace.far}
			var r load.StreamResult
			if err := c.ask(q, &r); err != nil {
				return nil, err
			}
			return []float64{float64(r.Bytes) * 8 / q.Duration.Seconds() / 1e6, milliseconds(r.LongestGap)}, nil
		},
	}
}

// relayed measures the relay alone: what one core of it passes on, of packets of size bytes.
func relayed(name string, size int) row {
	name += fmt.Sprintf(" packets (%d bytes)", size)
	return row{
		id: fmt.Sprintf("pass%d", size),
		metrics: []metric{
			{Name: name, Unit: "Gbit/s", Better: more},
			{Name: name, Unit: "packets/s", Better: more},
			{Name: name + ": for each second of its processor time", Unit: "packets", Better: more},
		},
		run: func(c *cell) ([]float64, error) {
			var p contestants.Passed
			_, cpu, err := c.cost(func() (err error) {
				if e := stage.Attempt(func() { p, err = c.pair.Alone.Blast(size, c.pace.blast) }); e != nil {
					return e
				}
				return err
			})
			if err != nil {
				return nil, err
			}
			return []float64{float64(p.Bytes) * 8 / p.Seconds / 1e9, float64(p.Datagrams) / p.Seconds, float64(p.Datagrams) / cpu}, nil
		},
	}
}
