//go:build linux

package lab

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Impairment is what one direction of a [Wire] does to frames. The zero value does nothing.
type Impairment struct {
	Delay  time.Duration // one way
	Jitter time.Duration // the delay varies by as much, up and down, evenly spread, without changing the order

	Loss    float64 // share of frames that disappear, 0 to 1, each for itself
	Reorder float64 // share of frames that skip Delay and Jitter, and so overtake, 0 to 1

	Rate int64 // bits of Ethernet frame a second; 0: as fast as they come

	// Queue is how many bytes of frames may wait for their turn at Rate, the one being sent
	// included; what comes to a full queue is dropped. An idle line takes any frame.
	// 0: 100 ms worth of Rate, and never less than 64 KiB.
	Queue int
}

func (i Impairment) validate() error {
	switch {
	case i.Delay < 0 || i.Jitter < 0 || i.Rate < 0 || i.Queue < 0:
		return fmt.Errorf("impairment %+v: negative", i)
	case !(i.Loss >= 0 && i.Loss <= 1) || !(i.Reorder >= 0 && i.Reorder <= 1):
		return fmt.Errorf("impairment %+v: a share is between 0 and 1", i)
	}
	return nil
}

// queue is how long the last of a full queue waits at i.Rate.
func (i Impairment) queue() time.Duration {
	size := i.Queue
	if size == 0 {
		size = max(64<<10, int(i.Rate/8/10))
	}
	return serialization(size, i.Rate)
}

// serialization is how long size bytes take at rate bits a second; at rate 0 no time.
func serialization(size int, rate int64) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(size) * 8 / float64(rate) * float64(time.Second))
}

type verdict uint8

const (
	pass verdict = iota
	lost
	overflow
)

// shaper decides the fate of the frames of one direction. Time is that of any steady clock.
type shaper struct {
	rand *rand.Rand
	free time.Duration // when the line has sent all that was admitted
	last time.Duration // when the latest frame in order is due
}

// admit is asked for each frame in the order of arrival, and says when it is to leave. The line sends one frame
// after another at Rate; then each is lost, or delayed.
func (s *shaper) admit(now time.Duration, size int, i Impairment) (due time.Duration, v verdict) {
	begin := max(now, s.free)
	if begin > now && i.Rate > 0 && begin-now+serialization(size, i.Rate) > i.queue() {
		return 0, overflow
	}
	due = begin + serialization(size, i.Rate)
	s.free = due
	if i.Loss > 0 && s.rand.Float64() < i.Loss {
		return 0, lost
	}
	if i.Reorder > 0 && s.rand.Float64() < i.Reorder {
		return due, pass
	}
	due += i.Delay
	if i.Jitter > 0 {
		due += time.Duration((2*s.rand.Float64() - 1) * float64(i.Jitter))
	}
	due = max(due, s.last, s.free)
	s.last = due
	return due, pass
}
