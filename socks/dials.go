package socks

import (
	"errors"
	"net"
	"strings"
	"sync"
)

var errTooManyDials = errors.New("too many dials to this host are in progress")

// dialCount counts dials in progress by host, so that one that does not answer
// is not all that clients wait for.
type dialCount struct {
	max int // set before the first use

	mu    sync.Mutex
	hosts map[string]int
}

// begin counts a dial in, or reports that there are too many.
func (d *dialCount) begin(host string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hosts[host] >= d.max {
		return false
	}
	if d.hosts == nil {
		d.hosts = make(map[string]int)
	}
	d.hosts[host]++
	return true
}

// end counts out what begin counted in.
func (d *dialCount) end(host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hosts[host]--; d.hosts[host] == 0 {
		delete(d.hosts, host)
	}
}

// hostOf is what dials to address are counted by.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
