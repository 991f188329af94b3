package wire

import "sync"

// statics remembers, for remotes that are known, the Diffie-Hellman result of their static key and ours (§4), which is
// the same in all handshakes with a remote; each other result is new. It depends on the two keys alone, of
// which ours is one for each Local, so what is remembered under a key cannot be wrong. Only what was made known
// has a place: strangers take none.
//
// An initiation under the name of a remote that is known takes less time to refuse than one under another. That tells
// who can measure it, and has the remote's public key, that we know the remote, and nothing more.
type statics struct {
	mu sync.Mutex
	of map[PublicKey]*[32]byte
}

func newStatics() *statics { return &statics{of: make(map[PublicKey]*[32]byte)} }

// Know makes handshakes with remote cheaper, at the price of one Diffie-Hellman result now, until Forget. Any
// goroutine may call it. It does nothing for a key that fails Check.
func (l *Local) Know(remote PublicKey) {
	result, err := exchange(l.ecdh, remote)
	if err != nil {
		return
	}
	s := l.statics
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[remote] = (*[32]byte)(result)
}

// Forget undoes Know and zeroes what was remembered.
func (l *Local) Forget(remote PublicKey) {
	s := l.statics
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.of[remote]; have != nil {
		clear(have[:])
		delete(s.of, remote)
	}
}

// get returns a copy of what is remembered, nil for nothing.
func (s *statics) get(remote PublicKey) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.of[remote]
	if have == nil {
		return nil
	}
	result := *have
	return result[:]
}
