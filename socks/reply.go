package socks

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
)

// ErrNotAllowed says that a rule forbids a destination. A dial function may
// return it, or an error that wraps it, to have the client told so.
var ErrNotAllowed = errors.New("not allowed by the proxy's rules")

// reply is the REP field of RFC 1928 section 6.
type reply byte

const (
	succeeded               reply = 0x00
	generalFailure          reply = 0x01
	notAllowed              reply = 0x02
	networkUnreachable      reply = 0x03
	hostUnreachable         reply = 0x04
	connectionRefused       reply = 0x05
	ttlExpired              reply = 0x06
	commandNotSupported     reply = 0x07
	addressTypeNotSupported reply = 0x08
)

// replyTo finds the reply for an error of Dial or Allow. A reason given by the
// network tells more than a deadline that passed beside it, so it goes first.
func replyTo(err error) reply {
	switch {
	case err == nil:
		return succeeded
	case errors.Is(err, ErrNotAllowed), errors.Is(err, os.ErrPermission):
		return notAllowed
	}
	for _, e := range errnoReplies {
		if errors.Is(err, e.errno) {
			return e.reply
		}
	}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return hostUnreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return ttlExpired
	case errors.As(err, &timeout) && timeout.Timeout():
		return ttlExpired
	}
	return generalFailure
}

// status is the HTTP status that says the same as r.
func (r reply) status() int {
	switch r {
	case notAllowed:
		return http.StatusForbidden
	case ttlExpired:
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// String is the reason in words for a client. The error itself is not sent to
// it: the error may tell of the inside of the network.
func (r reply) String() string {
	switch r {
	case succeeded:
		return "succeeded"
	case notAllowed:
		return "not allowed by the proxy's rules"
	case networkUnreachable:
		return "network unreachable"
	case hostUnreachable:
		return "host unreachable or unknown"
	case connectionRefused:
		return "connection refused"
	case ttlExpired:
		return "timed out"
	case commandNotSupported:
		return "command not supported"
	case addressTypeNotSupported:
		return "address type not supported"
	}
	return "general failure"
}
