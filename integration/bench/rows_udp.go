//go:build linux

package main

import (
	"fmt"

	"github.com/adit-overlay/adit/integration/bench/load"
)

// datagrams measures the greatest rate of UDP with less than 0.1 % lost.
func datagrams(size int) row {
	return row{
		id:      fmt.Sprintf("udp%d", size),
		metrics: []metric{{Name: fmt.Sprintf("UDP, %d bytes, <0.1 %% lost", size), Unit: "packets/s", Better: more}},
		run: func(c *cell) ([]float64, error) {
			var r load.FloodResult
			err := c.ask(load.Flood{Host: c.pair.IPv4, Size: size, Probe: c.pace.probe, Steps: c.pace.steps}, &r)
			return []float64{r.PerSecond}, err
		},
	}
}
