//go:build linux

package main

import (
	"time"

	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/lab"
)

const megabyte = 1e6

// These measure the end that has more memory resident, and the relay.
func idleMemory() row {
	return memoryRow("memory-idle", "memory, idle", stage.ResidentNow, beforeLoad, func(c *cell) error {
		time.Sleep(c.pace.settle)
		return nil
	})
}

func streamsMemory() row {
	return memoryRow("memory-streams", "memory, peak of the first streams", stage.ResidentPeak, beforeLoad, func(c *cell) error {
		for _, r := range []row{stream(1, up, v4), stream(1, down, v4), stream(8, up, v4), stream(8, down, v4)} {
			if _, err := r.run(c); err != nil {
				return err
			}
		}
		return nil
	})
}

func peakMemory() row {
	return memoryRow("memory-peak", "memory, peak of all rows", stage.ResidentPeak, afterLoad, func(*cell) error { return nil })
}

func memoryRow(id, name, field string, once moment, after func(*cell) error) row {
	return row{
		id:   id,
		once: once,
		metrics: []metric{
			{Name: name + ", an end", Unit: "MB", Better: less},
			{Name: name + ", the relay", Unit: "MB", Better: less},
		},
		run: func(c *cell) ([]float64, error) {
			if err := after(c); err != nil {
				return nil, err
			}
			figures := []float64{none(), none()}
			for i, ps := range [][]*lab.Process{c.pair.Ends, only(c.pair.Relay)} {
				if len(ps) == 0 {
					continue
				}
				bytes, err := stage.Memory(field, ps...)
				if err != nil {
					return nil, err
				}
				figures[i] = bytes / megabyte
			}
			return figures, nil
		},
	}
}

func only(p *lab.Process) []*lab.Process {
	if p == nil {
		return nil
	}
	return []*lab.Process{p}
}

// crowd measures a relay with many members: how fast one core of it takes them, and what one costs.
func crowd() row {
	return row{
		id: "crowd",
		metrics: []metric{
			{Name: "handshakes answered", Unit: "1/s", Better: more},
			{Name: "handshakes for each second of its processor time", Unit: "", Better: more},
			{Name: "memory of an attached member", Unit: "kB", Better: less},
		},
		run: func(c *cell) (figures []float64, err error) {
			if e := stage.Attempt(func() { figures, err = c.crowd() }); e != nil {
				err = e
			}
			return figures, err
		},
	}
}

func (c *cell) crowd() ([]float64, error) {
	relay := c.pair.Alone
	few, err := stage.Memory(stage.ResidentNow, c.pair.Relay)
	if err != nil {
		return nil, err
	}
	relay.Serve(c.pair, c.pace.crowd)
	defer relay.ServeTwo(c.pair)
	before, err := stage.CPUTime(c.pair.Relay)
	if err != nil {
		return nil, err
	}
	t, err := relay.Attach(c.pace.crowd)
	if err != nil {
		return nil, err
	}
	after, err := stage.CPUTime(c.pair.Relay)
	if err != nil {
		return nil, err
	}
	many, err := stage.Memory(stage.ResidentNow, c.pair.Relay)
	if err != nil {
		return nil, err
	}
	members := float64(c.pace.crowd)
	return []float64{members / t.Seconds, members / (after - before).Seconds(), (many - few) / members / 1000}, nil
}
