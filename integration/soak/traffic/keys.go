package traffic

import (
	"time"

	"github.com/adit-overlay/adit/peer"
)

// KeysOf tells when a peer agreed on keys with each other.
func KeysOf(p *peer.Peer) func() map[string]time.Time {
	return func() map[string]time.Time {
		since := make(map[string]time.Time)
		for _, r := range p.Status().Remotes {
			if r.Connected {
				since[r.PublicKey.String()] = r.Since
			}
		}
		return since
	}
}
