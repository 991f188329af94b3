package engine

import (
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// A session is one set of transport keys with a remote.
type session struct {
	remote      *Remote
	local, peer wire.Index
	initiator   bool
	established time.Time

	// unbroken is since when there have been keys without a gap, the sessions before included. Set before the session becomes
	// the current one.
	unbroken time.Time

	sealer *wire.Sealer
	opener *wire.Opener

	// confirmed: the initiator has shown that it holds the keys. Before that a responder seals
	// nothing by this session (§15). Set once.
	confirmed atomic.Bool

	// heard: something came by this session, so the other end uses it, or can. Set once. Until then
	// the session's initiator keeps asking.
	heard atomic.Bool

	// retired: nothing is opened any more. Set once.
	retired atomic.Bool

	mu     sync.Mutex // guards what follows; nothing is done under it but to look a counter up
	window wire.Window
}

// newSession makes a session of k, which it wipes.
func newSession(r *Remote, k *wire.Keys, initiator bool, now time.Time) *session {
	s := &session{
		remote: r, local: k.LocalIndex, peer: k.RemoteIndex, initiator: initiator, established: now,
		sealer: k.NewSealer(), opener: k.NewOpener(),
	}
	s.confirmed.Store(initiator)
	k.Wipe()
	return s
}

// accept lets pass a counter that was not seen before. newest says that no later one was.
func (s *session) accept(counter uint64) (newest, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest = counter >= s.window.Next()
	return newest, s.window.Accept(counter)
}

// indexes find the owner of a receiver index: a session, or an initiation under way.
type indexes struct {
	mu       sync.RWMutex
	sessions map[wire.Index]*session
	pending  map[wire.Index]*Remote
}

func (x *indexes) init() {
	x.sessions = make(map[wire.Index]*session)
	x.pending = make(map[wire.Index]*Remote)
}

// reserve returns an index nobody has, now pending for r.
func (x *indexes) reserve(r *Remote, random io.Reader) wire.Index {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		var b [4]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			panic("engine: no randomness: " + err.Error()) // crypto/rand never fails
		}
		i := wire.Index(binary.BigEndian.Uint32(b[:]))
		if x.sessions[i] == nil && x.pending[i] == nil {
			x.pending[i] = r
			return i
		}
	}
}

// promote turns a pending index into that of s.
func (x *indexes) promote(s *session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.pending, s.local)
	x.sessions[s.local] = s
}

// bury leaves of s, which is over, what shows that it was ours, and no keys.
func (x *indexes) bury(s *session) {
	over := &session{remote: s.remote, local: s.local, established: s.established}
	over.retired.Store(true)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sessions[s.local] = over
}

// release frees a pending index or that of a session.
func (x *indexes) release(i wire.Index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.pending, i)
	delete(x.sessions, i)
}

func (x *indexes) session(i wire.Index) *session {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.sessions[i]
}

func (x *indexes) initiation(i wire.Index) *Remote {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.pending[i]
}
