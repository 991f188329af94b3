package engine

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/wire"
)

// lookups find out from the relays who owns an address that no remote is known to own. Packets for
// it wait meanwhile.
type lookups struct {
	engine *Engine

	warnFull rate.Sometimes

	mu     sync.Mutex
	dst    map[netip.Addr]*lookup
	met    map[wire.PublicKey]time.Time // strangers asked about, and when
	closed bool
}

type lookup struct {
	held  held
	until time.Time // not asked again before that; zero while the question is open
	why   packet.Unreachable
}

const (
	maxLookups = 1024

	// ignorant is how long "nobody" is believed.
	ignorant = 2 * time.Second
)

func (l *lookups) init(e *Engine) {
	l.engine = e
	l.warnFull.Interval = time.Minute
	l.dst = make(map[netip.Addr]*lookup)
	l.met = make(map[wire.PublicKey]time.Time)
}

// hold keeps a packet for dst, to which there is no route, and asks. What cannot be asked about is
// refused.
func (l *lookups) hold(dst netip.Addr, p *packet.Packet, now time.Time) {
	e := l.engine
	if !dst.IsGlobalUnicast() { // broadcasts, neighbour discovery and the like end here
		e.drop(DropNoRoute)
		return
	}
	relays := e.listRelays()
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.dst[dst]
	switch {
	case l.closed:
		e.drop(DropHeld)
		return
	case len(relays) == 0:
		e.drop(DropNoRoute)
		e.refuse(copyOf(p, now).bytes, packet.NoRoute)
		return
	case q != nil && q.until.IsZero():
		e.dropN(DropHeld, q.held.add(p, now))
		return
	case q != nil && now.Before(q.until):
		e.drop(DropNoRoute)
		e.refuse(copyOf(p, now).bytes, q.why)
		return
	case q == nil && len(l.dst) >= maxLookups:
		l.sweep(now)
		if len(l.dst) >= maxLookups {
			e.drop(DropNoRoute)
			return
		}
	}
	q = &lookup{}
	l.dst[dst] = q
	q.held.add(p, now)
	e.askAll(relays, wire.Lookup{By: wire.ByAddress, Address: dst}, now, func(m *wire.Member, err error) {
		l.answered(dst, m, err)
	})
}

// sweep forgets answers that are no longer believed.
func (l *lookups) sweep(now time.Time) {
	for a, q := range l.dst {
		if !q.until.IsZero() && !now.Before(q.until) {
			delete(l.dst, a)
		}
	}
}

func (l *lookups) answered(dst netip.Addr, m *wire.Member, err error) {
	e, now := l.engine, time.Now()
	var r *Remote
	if m != nil {
		r = e.learn(*m)
	}
	l.mu.Lock()
	q := l.dst[dst]
	if q == nil || l.closed {
		l.mu.Unlock()
		return
	}
	packets := q.held.take()
	if r != nil {
		delete(l.dst, dst)
	} else {
		q.until, q.why = now.Add(ignorant), packet.NoRoute
		if !errors.Is(err, ErrNoMember) {
			q.why = packet.HostDown
		}
	}
	why := q.why
	l.mu.Unlock()
	if r != nil {
		r.holdBefore(packets, now)
		return
	}
	for _, p := range packets {
		e.drop(DropNoRoute)
		e.refuse(p.bytes, why)
	}
}

// meet asks who a stranger is that began a handshake: a member whose circuit we were not told of, it
// may be. If it is one, its initiation is served then; that it need not come again saves a second.
func (l *lookups) meet(key wire.PublicKey, initiation letter, now time.Time) {
	e := l.engine
	relays := e.listRelays()
	if len(relays) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.met[key]) < ignorant || l.closed {
		return
	}
	if len(l.met) >= maxLookups {
		clear(l.met)
	}
	l.met[key] = now
	e.askAll(relays, wire.Lookup{By: wire.ByKey, Key: key}, now, func(m *wire.Member, _ error) {
		if m == nil || e.learn(*m) == nil {
			return
		}
		select {
		case e.inbox.handshakes <- initiation:
		default:
			e.drop(DropHandshakeQueue)
		}
	})
}

func (l *lookups) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, q := range l.dst {
		q.held.clear(l.engine)
	}
	clear(l.dst)
}

// Errors of Lookup.
var (
	ErrNoMember = errors.New("no such member")
	ErrNoAnswer = errors.New("no relay answers")
)

// askAll puts q to all relays and calls done once, with the first member found, ErrNoMember when all know
// of none, or ErrNoAnswer.
func (e *Engine) askAll(relays []*Remote, q wire.Lookup, now time.Time, done func(*wire.Member, error)) {
	var mu sync.Mutex
	left, finished, err := len(relays), false, ErrNoMember
	for _, relay := range relays {
		ask := func(id wire.QuestionID) wire.Control { q.ID = id; return q }
		e.requests.ask(relay, ask, now, func(answer wire.Control) {
			mu.Lock()
			defer mu.Unlock()
			left--
			a, ok := answer.(wire.LookupReply)
			if !ok || a.Status == wire.LookupTryLater {
				err = ErrNoAnswer
			}
			if finished {
				return
			}
			if ok && a.Status == wire.LookupFound && answers(q, a.Member) {
				finished = true
				done(&a.Member, nil)
			} else if left == 0 {
				finished = true
				done(nil, err)
			}
		})
	}
}

// answers reports whether m is an answer to q at all.
func answers(q wire.Lookup, m wire.Member) bool {
	switch q.By {
	case wire.ByAddress:
		return slices.ContainsFunc(m.Prefixes, func(p netip.Prefix) bool { return p.Contains(q.Address) })
	case wire.ByKey:
		return m.Key == q.Key
	case wire.ByName:
		return m.Name == q.Name
	}
	return false
}

// LookupName returns the overlay addresses of the member called name: of a configured remote,
// or as the relays know it. The error is ErrNoMember, ErrNoAnswer or the context's.
func (e *Engine) LookupName(ctx context.Context, name string) ([]netip.Addr, error) {
	name = strings.ToLower(name)
	if wire.CheckName(name) != nil {
		return nil, ErrNoMember // and not a remote without a name
	}
	for _, r := range e.Remotes() {
		if r.Name() == name {
			if a := hosts(r.AllowedIPs()); len(a) > 0 {
				return a, nil
			}
		}
	}
	m, err := e.find(ctx, wire.Lookup{By: wire.ByName, Name: name})
	if err != nil {
		return nil, err
	}
	e.learn(*m)
	if a := hosts(m.Prefixes); len(a) > 0 {
		return a, nil
	}
	return nil, ErrNoMember
}

// find puts q to all relays and waits for what they say. The error is ErrNoMember, ErrNoAnswer or the context's.
func (e *Engine) find(ctx context.Context, q wire.Lookup) (*wire.Member, error) {
	relays := e.listRelays()
	if len(relays) == 0 {
		return nil, ErrNoMember
	}
	type result struct {
		m   *wire.Member
		err error
	}
	c := make(chan result, 1)
	e.askAll(relays, q, time.Now(), func(m *wire.Member, err error) { c <- result{m, err} })
	select {
	case res := <-c:
		return res.m, res.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ctx.Done():
		return nil, ErrNoAnswer
	}
}

// hosts are those of the prefixes that are one address: a member's own. Networks behind it have none.
func hosts(prefixes []netip.Prefix) []netip.Addr {
	var own []netip.Addr
	for _, p := range prefixes {
		if p.IsSingleIP() {
			own = append(own, p.Addr())
		}
	}
	return own
}

// learn makes a member that a relay told of a remote, or updates it. What configuration says about a remote
// stands; and no relay can give away addresses that are ours or a configured remote's.
func (e *Engine) learn(m wire.Member) *Remote {
	if m.Key == e.PublicKey() {
		return nil
	}
	if r := e.Remote(m.Key); r != nil {
		r.update(e.grantable(r, m.Prefixes), m.Name)
		return r
	}
	if len(e.Remotes()) >= maxRemotes {
		e.lookups.warnFull.Do(func() {
			e.log.Warn("too many remotes; members are not taken in until others have been quiet for ten minutes", "member", m.Name, "limit", maxRemotes)
		})
		return nil
	}
	r := e.newRemote(RemoteConfig{Name: m.Name, PublicKey: m.Key})
	r.learnt = true
	r.life.sent.Store(1)
	if e.enter(r) != nil {
		return e.Remote(m.Key) // another was faster
	}
	r.update(e.grantable(r, m.Prefixes), m.Name)
	r.wake()
	return r
}

// maxRemotes bounds how many members a peer talks with at a time.
const maxRemotes = 16384

// update takes what a directory says of a remote whose addresses configuration leaves open.
func (r *Remote) update(prefixes []netip.Prefix, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.told || r.closed {
		return
	}
	if r.learnt {
		r.name = name
	}
	if slices.Equal(r.allow, prefixes) {
		return
	}
	r.engine.routes.remove(r, r.allow)
	r.allow = prefixes
	r.engine.routes.add(r, prefixes)
}

// grantable are those of the prefixes that a relay may say are r's.
func (e *Engine) grantable(r *Remote, prefixes []netip.Prefix) []netip.Prefix {
	table := e.routes.table.Load()
	var ok []netip.Prefix
	for _, p := range prefixes {
		owner, taken := table.LookupPrefix(p)
		if taken && owner != nil && owner != r && !owner.told {
			continue
		}
		if slices.ContainsFunc(e.cfg.Addresses, func(own netip.Prefix) bool { return p.Contains(own.Addr()) && p.Bits() >= own.Bits() }) {
			continue
		}
		ok = append(ok, p)
	}
	return ok
}
