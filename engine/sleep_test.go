package engine

import (
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/adit-overlay/adit/underlay"
)

// sleep has n's host sleep: its timers stand still, it sends nothing, and what is sent to it is lost. Where the
// monotonic clock stands still as well, as it does on Linux, n does not know afterwards that time has passed.
func (n *node) sleep(d time.Duration, clock monotonic) {
	synctest.Wait()
	remotes := n.engine.Remotes()
	for _, r := range remotes {
		r.timer.Stop()
	}
	n.engine.requests.timer.Stop()
	n.wire.Unplug()
	advance(d)
	for _, r := range remotes {
		if clock == stands {
			delay(reflect.ValueOf(r).Elem(), d)
			for _, s := range []*session{r.current.Load(), r.keys.previous, r.keys.next} {
				if s != nil {
					s.established = s.established.Add(d)
				}
			}
		}
		r.timer.Reset(0)
	}
	n.engine.requests.timer.Reset(0)
	n.wire.Plug()
}

type monotonic string

const (
	goesOn monotonic = "the clock goes on"
	stands monotonic = "the clock stands still"
)

// delay makes all times in v, and in what is in v, so much later; but not those behind pointers.
func delay(v reflect.Value, d time.Duration) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			if t := (*time.Time)(unsafe.Pointer(v.UnsafeAddr())); !t.IsZero() {
				*t = t.Add(d)
			}
			return
		}
		for i := range v.NumField() {
			delay(v.Field(i), d)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			delay(v.Index(i), d)
		}
	}
}

// recovery is how long it takes from now on until b hears a and a hears b, when a sends all the time and b answers.
func recovery(a, b *node, limit time.Duration) time.Duration {
	a.lab.t.Helper()
	a.dev.take()
	b.dev.take()
	began := time.Now()
	for i := 0; ; i++ {
		a.send(b, fmt.Sprint("ping ", i))
		advance(20 * time.Millisecond)
		if len(b.dev.take()) > 0 {
			b.send(a, "pong")
		}
		for _, s := range a.dev.texts() {
			if s == "pong" {
				return time.Since(began)
			}
		}
		if time.Since(began) > limit {
			a.lab.t.Fatalf("%s and %s do not hear each other %v after the cause was over", a.name, b.name, limit)
		}
	}
}

// An hour of sleep, or of a cut, costs two seconds at most once it is over, whoever slept and whoever has something to
// say, and at whatever moment between two attempts of the other end that is.
func TestTrafficFlowsTwoSecondsAfterAnHour(t *testing.T) {
	const hop, limit = 20 * time.Millisecond, 2 * time.Second
	moments := 6
	if testing.Short() || raceEnabled {
		moments = 2
	}
	for _, test := range []struct {
		name  string
		cause func(l *lab, a, b *node, d time.Duration)
		quiet bool // nobody has anything to send meanwhile
	}{
		{"a sleeps, " + string(goesOn), func(_ *lab, a, _ *node, d time.Duration) { a.sleep(d, goesOn) }, true},
		{"a sleeps, " + string(stands), func(_ *lab, a, _ *node, d time.Duration) { a.sleep(d, stands) }, true},
		{"cut off, quiet", cutOff, true},
		{"cut off, sending", cutOff, false},
	} {
		for _, speaker := range []string{"a", "b"} {
			t.Run(test.name+", then "+speaker+" speaks", func(t *testing.T) {
				var longest time.Duration
				for i := range moments {
					inFakeTime(t, func(t *testing.T, l *lab) {
						l.seed = byte(i)
						l.net.SetDefault(underlay.Link{Delay: hop})
						a, b := l.pair()
						first, second := a, b
						if speaker == "b" {
							first, second = b, a
						}
						d := 12 * time.Minute // as good as an hour: no session lives so long
						if i == 0 {
							d = time.Hour
						}
						d += time.Duration(i) * 537 * time.Millisecond
						if !test.quiet {
							done := make(chan struct{})
							defer func() { <-done }()
							stop := time.Now().Add(d)
							go func() {
								defer close(done)
								for time.Now().Before(stop) {
									a.send(b, "is anybody there?")
									time.Sleep(time.Second)
								}
							}()
						}
						test.cause(l, a, b, d)
						longest = max(longest, recovery(first, second, 2*limit))
						wantsOneSession(a, b)
					})
				}
				t.Logf("traffic after %v at the latest", longest)
				if longest > limit {
					t.Errorf("no traffic for %v, want at most %v", longest, limit)
				}
			})
		}
	}
}

func cutOff(l *lab, a, b *node, d time.Duration) {
	l.net.Partition(a.addr, b.addr)
	advance(d)
	l.net.Heal(a.addr, b.addr)
}

// A clock that is set forth and back orders nothing anew: initiations count on from the last.
func TestClockThatIsSetKeepsNobodyOut(t *testing.T) {
	for _, steps := range [][]time.Duration{
		{-time.Hour, 0},
		{time.Hour, 0},
		{24 * 365 * time.Hour, -24 * 365 * time.Hour, 0},
		{-time.Second, time.Second, -time.Second},
	} {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				a, b := l.plan("a"), l.plan("b")
				a.rekey, b.rekey = 20*time.Second, 20*time.Second
				a.start()
				b.start()
				a.knows(b, at(b))
				b.knows(a, at(a))
				advance(time.Second)
				wantsOneSession(a, b)
				for _, step := range steps {
					a.ahead = step
					s := a.sessionWith(b)
					for i := range 40 { // new keys are due, by a or by b
						text := fmt.Sprint(step, i)
						a.send(b, text)
						b.wants(text)
						b.send(a, text)
						a.wants(text)
						advance(time.Second)
					}
					if a.sessionWith(b) == s {
						t.Errorf("no new keys in 40 s with the clock set by %v", step)
					}
				}
				if n := a.drops(DropReplayedHandshake) + b.drops(DropReplayedHandshake); n != 0 {
					t.Errorf("%d initiations were taken for old ones", n)
				}
			})
		})
	}
}
