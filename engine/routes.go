package engine

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// routes say which remote owns an overlay address: where packets to it go, and who may send from
// it. Readers see a snapshot; the longest prefix wins.
type routes struct {
	mu    sync.Mutex // held by writers
	table atomic.Pointer[bart.Table[*Remote]]
}

func (t *routes) init() { t.table.Store(new(bart.Table[*Remote])) }

// ask gives the prefixes to nobody: what is in them and has no longer route is to be asked of a directory, though
// a shorter one, such as a default route, has an owner.
func (t *routes) ask(prefixes []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.table.Load()
	for _, p := range prefixes {
		if _, taken := now.Get(p.Masked()); !taken {
			now = now.InsertPersist(p.Masked(), nil)
		}
	}
	t.table.Store(now)
}

// lookup returns the owner of a, nil if there is none.
func (t *routes) lookup(a netip.Addr) *Remote {
	r, _ := t.table.Load().Lookup(a)
	return r
}

// add gives the prefixes to r. A prefix that another remote holds already stays that one's:
// what configuration says first is not taken away by what a relay says later.
func (t *routes) add(r *Remote, prefixes []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.table.Load()
	for _, p := range prefixes {
		if have, _ := now.Get(p); have == nil {
			now = now.InsertPersist(p, r)
		}
	}
	t.table.Store(now)
}

// remove takes from r whatever it holds.
func (t *routes) remove(r *Remote, prefixes []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.table.Load()
	for _, p := range prefixes {
		if have, ok := now.Get(p); ok && have == r {
			now = now.DeletePersist(p)
		}
	}
	t.table.Store(now)
}
