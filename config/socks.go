package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Socks is the SOCKS5 listener of a peer.
type Socks struct {
	Listen   string // TCP: host:port
	Username string // both empty: no password is asked
	Password string `json:"-"`

	// Limits. Zero is the proxy's default.
	MaxConnections          int // clients at one time
	MaxConnectionsPerClient int // the same, from one address that is not loopback
	MaxDialsPerHost         int // dials in progress to one destination
	HandshakeTimeout        time.Duration
	IdleTimeout             time.Duration
}

// Format prints String, whatever the verb: the password is in none.
func (s Socks) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// String leaves the password out.
func (s Socks) String() string {
	if s.Username == "" {
		return s.Listen
	}
	return s.Listen + " with a password"
}

// maxCredential is what RFC 1929 has room for.
const maxCredential = 255

// Check reports what is wrong with s. Above all, a listener that others than this host can
// reach must ask for a password: without one it opens the overlay to whoever finds it.
func (s *Socks) Check() error {
	if err := s.checkListen(); err != nil {
		return err
	}
	return s.checkPassword()
}

func (s *Socks) checkListen() error {
	open, err := s.reachable()
	if err != nil {
		return err
	}
	if open && s.Username == "" && s.Password == "" {
		return fmt.Errorf("%s can be reached from other hosts: set username and password, or listen on 127.0.0.1", quote(s.Listen))
	}
	return nil
}

func (s *Socks) checkPassword() error {
	switch {
	case s.Username == "" && s.Password != "":
		return errors.New("there is a password but no username: set both")
	case s.Username != "" && s.Password == "":
		return errors.New("there is a username but no password: set both")
	case len(s.Username) > maxCredential:
		return fmt.Errorf("the username is too long: SOCKS5 has room for %d bytes", maxCredential)
	case len(s.Password) > maxCredential:
		return fmt.Errorf("the password is too long: SOCKS5 has room for %d bytes", maxCredential)
	}
	return nil
}

// reachable reports whether other hosts can connect to where s listens.
func (s *Socks) reachable() (bool, error) {
	const want = "want such as 127.0.0.1:1080 or [::1]:1080"
	if host, port, err := net.SplitHostPort(s.Listen); err == nil && host == "localhost" {
		_, err := parseListen("127.0.0.1:"+port, want)
		return false, err
	}
	at, err := parseListen(s.Listen, want)
	return !at.Addr().Unmap().IsLoopback(), err
}

var socksKeys = []string{
	"listen", "username", "password",
	"max_connections", "max_connections_per_client", "max_dials_per_host", "handshake_timeout", "idle_timeout",
}

// Bounds of the limits. A client far away takes a second for its handshake, and one that is idle may be a shell somebody comes back to.
const (
	minHandshakeTimeout = time.Second
	maxHandshakeTimeout = 10 * time.Minute
	minIdleTimeout      = 10 * time.Second
	maxIdleTimeout      = 30 * 24 * time.Hour
)

func readSocks(s *section) *Socks {
	v, ok := s.get("socks")
	if !ok {
		return nil
	}
	sub, ok := v.section(socksKeys)
	if !ok {
		return nil
	}
	socks := &Socks{Listen: DefaultSocksListen}
	at := v
	if l, ok := sub.get("listen"); ok {
		at = l
		if socks.Listen, ok = l.text(); !ok {
			return nil
		}
	}
	if v, ok := sub.get("username"); ok {
		socks.Username, _ = v.text()
	}
	if v, ok := sub.get("password"); ok {
		socks.Password, _ = v.text()
		if s.report.loose != nil {
			v.wrong("a password in a file that is %s", s.report.loose)
		}
	}
	socks.readLimits(sub)
	if err := socks.checkListen(); err != nil {
		at.wrong("%s", err)
	}
	if err := socks.checkPassword(); err != nil {
		v.wrong("%s", err)
	}
	return socks
}

func (s *Socks) readLimits(sub *section) {
	sub.bounds(
		bound{"max_connections", "connections", &s.MaxConnections},
		bound{"max_connections_per_client", "connections", &s.MaxConnectionsPerClient},
		bound{"max_dials_per_host", "dials", &s.MaxDialsPerHost},
	)
	if v, ok := sub.get("handshake_timeout"); ok {
		s.HandshakeTimeout, _ = v.duration(minHandshakeTimeout, maxHandshakeTimeout)
	}
	if v, ok := sub.get("idle_timeout"); ok {
		s.IdleTimeout, _ = v.duration(minIdleTimeout, maxIdleTimeout)
	}
}
