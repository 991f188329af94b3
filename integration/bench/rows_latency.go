//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/adit-overlay/adit/integration/bench/load"
)

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ping measures echoes of 64 bytes of UDP, one after another; besideStream, while a stream runs.
func ping(besideStream bool) row { return echo("ping", "ping (UDP)", true, besideStream) }

// pingpong measures 64 bytes of TCP back and forth on one connection.
func pingpong(besideStream bool) row {
	return echo("pingpong", "TCP ping-pong", false, besideStream)
}

// Arguments of ping and pingpong.
const (
	idle         = false
	besideStream = true
)

func echo(id, name string, udp, beside bool) row {
	if beside {
		id, name = id+"-loaded", name+" beside a stream"
	}
	return row{
		id: id,
		metrics: []metric{
			{Name: name + ", p50", Unit: "µs", Better: less},
			{Name: name + ", p99", Unit: "µs", Better: less},
		},
		run: func(c *cell) ([]float64, error) {
			q := load.Echo{Host: c.pair.IPv4, UDP: udp, Duration: c.pace.echo}
			if beside {
				q.Beside = &load.Stream{Host: c.pair.IPv4, Streams: 1}
			}
			var r load.EchoResult
			if err := c.ask(q, &r); err != nil {
				return nil, err
			}
			if r.Count == 0 {
				return nil, fmt.Errorf("all %d echoes were lost", r.Lost)
			}
			return []float64{microseconds(r.P50), microseconds(r.P99)}, nil
		},
	}
}

// cold measures dials without a session, each as another member.
func cold() row {
	name := "joining, dialling, first byte"
	return row{
		id: "cold",
		metrics: []metric{
			{Name: name + ", p50", Unit: "ms", Better: less},
			{Name: name + ", p99", Unit: "ms", Better: less},
		},
		run: func(c *cell) ([]float64, error) {
			var r load.Latency
			if err := c.ask(load.Cold{Host: c.pair.IPv4, Dials: c.pace.cold}, &r); err != nil {
				return nil, err
			}
			return []float64{milliseconds(r.P50), milliseconds(r.P99)}, nil
		},
	}
}
