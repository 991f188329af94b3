package socks

import "sync/atomic"

// Stats counts what became of clients since the Server was made. A client may
// ask several times over HTTP, and each time counts.
type Stats struct {
	Active   int    `json:"active"`   // clients connected now
	Accepted uint64 `json:"accepted"` // clients taken from the listeners, those refused included

	// Clients turned away before they had asked for anything.
	OverMaxConns     uint64 `json:"over_max_conns"`
	OverMaxPerClient uint64 `json:"over_max_per_client"`
	UnknownProtocol  uint64 `json:"unknown_protocol"`  // the first byte was of neither SOCKS5 nor HTTP
	HandshakeTimeout uint64 `json:"handshake_timeout"` // not through with the handshake in time
	HandshakeBroken  uint64 `json:"handshake_broken"`  // gone before the end of the handshake

	// Requests refused without a dial.
	Malformed    uint64 `json:"malformed"`      // a handshake, header or destination that is none
	AuthFailed   uint64 `json:"auth_failed"`    // a wrong password, or none where one is asked
	Unsupported  uint64 `json:"unsupported"`    // a SOCKS5 command or address type not served
	Denied       uint64 `json:"denied"`         // Allow refused the destination
	TooManyDials uint64 `json:"too_many_dials"` // too many dials to the host were in progress

	// What came of the dials.
	Connected           uint64 `json:"connected"`
	DialRefused         uint64 `json:"dial_refused"`
	DialTimedOut        uint64 `json:"dial_timed_out"`
	DialHostUnreachable uint64 `json:"dial_host_unreachable"`
	DialNetUnreachable  uint64 `json:"dial_net_unreachable"`
	DialNotAllowed      uint64 `json:"dial_not_allowed"`
	DialOther           uint64 `json:"dial_other"`

	// What came of the connections.
	Broken        uint64 `json:"broken"`          // ended by an error on one side
	Idle          uint64 `json:"idle"`            // ended by IdleTimeout
	BytesToTarget uint64 `json:"bytes_to_target"` // carried by SOCKS5 and CONNECT
	BytesToClient uint64 `json:"bytes_to_client"`

	HTTPRequests uint64 `json:"http_requests"` // requests of all kinds, CONNECT included
}

// counters are Stats while they grow.
type counters struct {
	accepted atomic.Uint64

	overMaxConns     atomic.Uint64
	overMaxPerClient atomic.Uint64
	unknownProtocol  atomic.Uint64
	handshakeTimeout atomic.Uint64
	handshakeBroken  atomic.Uint64

	malformed    atomic.Uint64
	authFailed   atomic.Uint64
	unsupported  atomic.Uint64
	denied       atomic.Uint64
	dialsLimited atomic.Uint64

	dials [addressTypeNotSupported + 1]atomic.Uint64 // by reply

	broken        atomic.Uint64
	idle          atomic.Uint64
	bytesToTarget atomic.Uint64
	bytesToClient atomic.Uint64

	httpRequests atomic.Uint64
}

// Stats returns the counts at this moment.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{
		Active:   s.conns.active(),
		Accepted: c.accepted.Load(),

		OverMaxConns:     c.overMaxConns.Load(),
		OverMaxPerClient: c.overMaxPerClient.Load(),
		UnknownProtocol:  c.unknownProtocol.Load(),
		HandshakeTimeout: c.handshakeTimeout.Load(),
		HandshakeBroken:  c.handshakeBroken.Load(),

		Malformed:    c.malformed.Load(),
		AuthFailed:   c.authFailed.Load(),
		Unsupported:  c.unsupported.Load(),
		Denied:       c.denied.Load(),
		TooManyDials: c.dialsLimited.Load(),

		Connected:           c.dials[succeeded].Load(),
		DialRefused:         c.dials[connectionRefused].Load(),
		DialTimedOut:        c.dials[ttlExpired].Load(),
		DialHostUnreachable: c.dials[hostUnreachable].Load(),
		DialNetUnreachable:  c.dials[networkUnreachable].Load(),
		DialNotAllowed:      c.dials[notAllowed].Load(),
		DialOther:           c.dials[generalFailure].Load() + c.dials[addressTypeNotSupported].Load(),

		Broken:        c.broken.Load(),
		Idle:          c.idle.Load(),
		BytesToTarget: c.bytesToTarget.Load(),
		BytesToClient: c.bytesToClient.Load(),

		HTTPRequests: c.httpRequests.Load(),
	}
}

// handshakeFailed counts an error of reading or writing during a handshake.
func (c *counters) handshakeFailed(err error) {
	if deadlinePassed(err) {
		c.handshakeTimeout.Add(1)
	} else {
		c.handshakeBroken.Add(1)
	}
}
