package traffic

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Wrong says what is wrong.
type Wrong string

const (
	WrongBytes Wrong = "wrong bytes"      // something arrived that was not sent, or not there
	Twice      Wrong = "delivered twice"  // a packet may be, question or answer, once its receiver's peer has been restarted under it
	Broken     Wrong = "connection lost"  // a reason it may have: its other end died
	Refused    Wrong = "request failed"   // while nothing was done to the network or its members
	Lost       Wrong = "datagram lost"    // likewise; a few may be
	Unending   Wrong = "end out of order" // what was to end in order did not
	Witnessed  Wrong = "at its far end"   // what became of a stream there: not wrong by itself, its dialler finds that
)

// A Finding is something an agent saw that must have a reason.
type Finding struct {
	What      Wrong
	From, To  string // members; To is empty where a datagram does not say whose it is
	Flow      string // kind and family
	Began, At time.Time
	Error     string

	// Back says that From found it in what came back; otherwise, if it is about a packet, To found it in what arrived.
	Back bool

	// Late says that it failed for want of an answer in time. On a machine that was busy with other things that has no other
	// reason, but where there was a quarter of an hour for it.
	Late bool
	Busy bool // whether it was; agents do not know
}

// late reports whether an error is that something did not come in time: a deadline passed, or whom nothing was heard of counts as
// gone.
func late(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout() || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// OfSameStream reports whether both are about one stream: each end tells of it what it saw.
func (f Finding) OfSameStream(g Finding) bool {
	return f.From == g.From && f.To == g.To && f.Flow == g.Flow && strings.HasPrefix(f.Flow, Stream) && f.Began.Sub(g.Began).Abs() <= dialTimeout
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s from %s to %s, %.1f s old: %s", f.What, f.At.UTC().Format("15:04:05.0"), f.Flow, f.From, f.To, f.At.Sub(f.Began).Seconds(), f.Error)
}

// maxFindings bounds what is kept: who has a thousand need not know of more.
const maxFindings = 1000

// findings is a list that only grows.
type findings struct {
	mu  sync.Mutex
	all []Finding
}

func (l *findings) add(f Finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) < maxFindings {
		l.all = append(l.all, f)
	}
}

// after returns those that follow the first n.
func (l *findings) after(n int) []Finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Finding(nil), l.all[min(n, len(l.all)):]...)
}
