//go:build linux

package main

import (
	"fmt"

	"github.com/adit-overlay/adit/integration/bench/load"
)

// Arguments of closedLoop.
const (
	newConnections = false
	keptAlive      = true
)

// closedLoop measures GETs by 32 clients, each of which waits for its answer.
func closedLoop(keepAlive bool) row {
	id, name := "http-new", "HTTP, a connection each"
	if keepAlive {
		id, name = "http-kept", "HTTP, kept alive"
	}
	return row{
		id: id,
		metrics: []metric{
			{Name: name, Unit: "GET/s", Better: more},
			{Name: name + ", p99", Unit: "ms", Better: less},
		},
		run: func(c *cell) ([]float64, error) {
			var r load.HTTPResult
			err := c.ask(load.HTTP{Host: c.pair.IPv4, Clients: 32, Duration: c.pace.http, KeepAlive: keepAlive}, &r)
			if err != nil {
				return nil, err
			}
			return []float64{r.PerSecond, milliseconds(r.P99)}, nil
		},
	}
}

// openLoop measures GETs at a rate, a connection each.
func openLoop(rate int) row {
	name := fmt.Sprintf("%d GET/s", rate)
	return row{
		id: fmt.Sprintf("open%d", rate),
		metrics: []metric{
			{Name: name + ", answered within 10 s", Unit: "%", Better: more, Zero: true},
			{Name: name + ", p99", Unit: "ms", Better: less},
		},
		run: func(c *cell) ([]float64, error) {
			var r load.OpenResult
			if err := c.ask(load.Open{Host: c.pair.IPv4, Rate: rate, Duration: c.pace.open}, &r); err != nil {
				return nil, err
			}
			p99 := none()
			if r.Count > 0 {
				p99 = milliseconds(r.P99)
			}
			return []float64{100 * r.OK, p99}, nil
		},
	}
}
