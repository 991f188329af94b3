package underlay

import (
	"net/netip"
	"time"
)

// An Observer is told what became of each datagram, once that is settled: of one that is delayed when it arrives,
// of one that is doubled twice. It is called with the network locked and must not call its methods.
type Observer func(Passage, Fate)

// Passage is one datagram, or one copy of it, on its way.
type Passage struct {
	From, To netip.AddrPort
	Datagram []byte // as it arrives; borrowed. Empty for what the tap dropped
	Sent     time.Time

	Copy    bool // the second of a datagram that was doubled
	Corrupt bool // a bit was turned over
}

// Fate is what became of a datagram. The names are those of MemoryStats.
type Fate uint8

const (
	FateDelivered Fate = iota
	FateTapped
	FateDown
	FateLost
	FateTooLong
	FateNobody
	FateCrowded
	FateUnread // the node could not hold it
)

func (f Fate) String() string {
	return [...]string{"delivered", "tapped", "down", "lost", "too long", "nobody there", "crowded out", "unread"}[f]
}

// SetObserver makes o see the fate of all datagrams from now on; nil takes it away.
func (m *Memory) SetObserver(o Observer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observer = o
}

// end counts what became of a datagram, and tells the observer. Needs mu.
func (m *Memory) end(p Passage, f Fate) {
	s := &m.stats
	count := [...]*uint64{&s.Delivered, &s.Tapped, &s.Down, &s.Lost, &s.TooLong, &s.Nobody, &s.Crowded, nil}
	if count[f] != nil { // what is unread, the node's own Stats count
		*count[f]++
	}
	if m.observer != nil {
		m.observer(p, f)
	}
}
