package engine

import (
	"testing"
	"time"
)

func TestTwoPeersTalk(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b))
		b.knows(a, "")
		a.send(b, "hello")
		b.wants("hello")
		b.send(a, "good day")
		a.wants("good day")
		wantsOneSession(a, b)
	})
}

func TestFirstPacketsAreHeldAndKeepTheirOrder(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.plan("b")
		a.knows(b, at(b))
		for _, s := range []string{"1", "2", "3"} {
			a.send(b, s)
		}
		advance(2 * time.Second) // b is not there yet
		b.start()
		b.knows(a, "")
		advance(3 * time.Second)
		b.wants("1", "2", "3")
	})
}
