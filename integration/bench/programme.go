//go:build linux

package main

import (
	"time"

	"github.com/adit-overlay/adit/integration/bench/contestants"
)

// programme says what is measured in each class: quickly, usually (that and more), and when all is asked for.
var programme = []struct {
	class                 string
	quick, usually, extra []row
}{
	{contestants.TUN,
		[]row{idleMemory(), streamsMemory(), stream(1, up, v4), pingpong(idle), datagrams(1300), closedLoop(keptAlive), peakMemory()},
		[]row{
			stream(1, down, v4), stream(8, up, v4), stream(1, up, v6),
			ping(idle), ping(besideStream), pingpong(besideStream),
			datagrams(64), closedLoop(newConnections),
		},
		[]row{stream(8, down, v4), stream(1, down, v6), stream(8, up, v6), stream(8, down, v6), openLoop(1000), openLoop(10000)},
	},
	{contestants.Stack,
		[]row{idleMemory(), streamsMemory(), stream(1, up, v4), stream(1, up, v6), pingpong(idle), datagrams(1300), cold(), closedLoop(keptAlive), peakMemory()},
		[]row{
			stream(1, down, v4), stream(8, up, v4),
			ping(idle), ping(besideStream), pingpong(besideStream),
			datagrams(64), closedLoop(newConnections),
		},
		[]row{stream(8, down, v4), stream(1, down, v6), stream(8, up, v6), stream(8, down, v6), openLoop(1000), openLoop(10000)},
	},
	{contestants.StackOne,
		[]row{stream(1, up, v4)},
		[]row{
			stream(1, down, v4), stream(8, up, v4), pingpong(idle), pingpong(besideStream),
			closedLoop(newConnections), closedLoop(keptAlive),
		},
		[]row{stream(1, up, v6), ping(idle)},
	},
	{contestants.Mixed,
		[]row{stream(1, up, v4), stream(1, down, v4)},
		[]row{stream(8, up, v4)},
		[]row{pingpong(idle), closedLoop(newConnections), stream(8, down, v4), stream(1, up, v6), stream(1, down, v6), datagrams(64), datagrams(1300)},
	},
	{contestants.Socks,
		[]row{idleMemory(), streamsMemory(), stream(1, up, v4), closedLoop(newConnections), openLoop(1000), peakMemory()},
		[]row{
			stream(1, down, v4), stream(8, up, v4), pingpong(idle), pingpong(besideStream), closedLoop(keptAlive),
			openLoop(250), openLoop(5000), openLoop(10000),
		},
		[]row{stream(8, down, v4), stream(1, up, v6)},
	},
	{contestants.SocksOne,
		[]row{stream(1, up, v4)},
		[]row{stream(1, down, v4), pingpong(idle), closedLoop(newConnections)},
		nil,
	},
	{contestants.RelayTUN,
		[]row{idleMemory(), streamsMemory(), stream(1, up, v4), pingpong(idle), peakMemory()},
		[]row{
			stream(1, down, v4), stream(8, up, v4), pingpong(besideStream), datagrams(1300),
			closedLoop(newConnections), closedLoop(keptAlive), openLoop(1000), openLoop(5000), openLoop(10000),
		},
		[]row{stream(8, down, v4), stream(1, up, v6), ping(idle), datagrams(64), openLoop(250)},
	},
	{contestants.RelayStack,
		[]row{stream(1, up, v4), pingpong(idle)},
		[]row{stream(1, down, v4), closedLoop(newConnections), closedLoop(keptAlive)},
		[]row{stream(8, up, v4), stream(8, down, v4), stream(1, up, v6), ping(idle), datagrams(64), datagrams(1300)},
	},
	{contestants.RelaySocks,
		[]row{stream(1, up, v4), openLoop(250)},
		[]row{stream(1, down, v4), closedLoop(newConnections), closedLoop(keptAlive), openLoop(1000), openLoop(5000), openLoop(10000)},
		[]row{stream(8, up, v4), stream(8, down, v4), pingpong(idle)},
	},
	{contestants.RelayAlone,
		[]row{relayed("full-size", 1400), crowd()},
		[]row{relayed("small", 64)},
		nil,
	},
	{contestants.Offloads,
		[]row{stream(1, up, v4)},
		[]row{pingpong(idle), datagrams(1300)},
		[]row{stream(8, up, v4), datagrams(64)},
	},
	{contestants.Far,
		[]row{far(20*time.Millisecond, 0.001)},
		[]row{
			far(time.Millisecond, 0.01), far(20*time.Millisecond, 0),
			far(100*time.Millisecond, 0.001), far(200*time.Millisecond, 0.005),
		},
		[]row{
			far(time.Millisecond, 0), far(time.Millisecond, 0.001), far(time.Millisecond, 0.005),
			far(20*time.Millisecond, 0.005), far(20*time.Millisecond, 0.01),
			far(100*time.Millisecond, 0), far(100*time.Millisecond, 0.005), far(100*time.Millisecond, 0.01),
			far(200*time.Millisecond, 0), far(200*time.Millisecond, 0.001), far(200*time.Millisecond, 0.01),
		},
	},
}

// extent is how much of the programme is run.
type extent int

const (
	quickly extent = iota
	usually
	everything
)

// rowsOf returns the rows of a class.
func rowsOf(class string, e extent) []row {
	var rows []row
	for _, p := range programme {
		if p.class != class {
			continue
		}
		rows = append(rows, p.quick...)
		if e >= usually {
			rows = append(rows, p.usually...)
		}
		if e >= everything {
			rows = append(rows, p.extra...)
		}
	}
	return rows
}
