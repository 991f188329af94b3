package peer

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		waiting := make(map[int]<-chan struct{})
		want := func(waiter int, passed bool) {
			t.Helper()
			synctest.Wait()
			if isDone(waiting[waiter]) != passed || isDone(d.passed()) != passed {
				t.Errorf("waiter %d: passed is %t, and now %t; want %t", waiter, isDone(waiting[waiter]), isDone(d.passed()), passed)
			}
		}
		in := func(left time.Duration) { d.set(time.Now().Add(left)) }

		waiting[1] = d.passed()
		in(time.Hour)
		want(1, false)
		in(2 * time.Hour) // later
		time.Sleep(time.Hour)
		want(1, false)
		in(time.Minute) // earlier
		time.Sleep(time.Minute)
		want(1, true)

		in(time.Hour) // back into the future
		waiting[2] = d.passed()
		want(2, false)
		d.set(time.Time{}) // never
		time.Sleep(2 * time.Hour)
		want(2, false)
		in(0)
		want(2, true)

		// Set again just when it passes.
		for range 100 {
			in(time.Second)
			time.Sleep(time.Second)
			in(time.Second)
			waiting[3] = d.passed()
			want(3, false)
		}
		d.set(time.Time{})
	})
}
