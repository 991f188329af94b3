package config

import (
	"errors"
	"fmt"
	"net"
)

// Socks is the SOCKS5 listener of a peer.
type Socks struct {
	Listen   string // TCP: host:port
	Username string // both empty: no password is asked
	Password string
}

// String leaves the password out.
func (s *Socks) String() string {
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
	open, err := s.reachable()
	switch {
	case err != nil:
		return err
	case open && s.Username == "" && s.Password == "":
		return fmt.Errorf("%s can be reached from other hosts: set username and password, or listen on 127.0.0.1", quote(s.Listen))
	case s.Username == "" && s.Password != "":
		return errors.New("there is a password but no username: set both")
	case s.Username != "" && s.Password == "":
		return errors.New("there is a username but no password: set both")
	case len(s.Username) > maxCredential:
		return fmt.Errorf("the username is longer than the %d bytes SOCKS5 has room for", maxCredential)
	case len(s.Password) > maxCredential:
		return fmt.Errorf("the password is longer than the %d bytes SOCKS5 has room for", maxCredential)
	}
	return nil
}

// reachable reports whether other hosts can connect to where s listens.
func (s *Socks) reachable() (bool, error) {
	if host, port, err := net.SplitHostPort(s.Listen); err == nil && host == "localhost" {
		_, err := parseListen("127.0.0.1:" + port)
		return false, err
	}
	at, err := parseListen(s.Listen)
	return !at.Addr().Unmap().IsLoopback(), err
}

var socksKeys = []string{"listen", "username", "password"}

func readSocks(s *section) *Socks {
	v, ok := s.get("socks")
	if !ok {
		return nil
	}
	sub, ok := v.section(socksKeys)
	if !ok {
		return nil
	}
	at := v // where the listener is described best
	read := func(key string, into *string) bool {
		v, ok := sub.get(key)
		if !ok {
			return !sub.has(key)
		}
		*into, ok = v.text()
		return ok
	}
	socks := &Socks{Listen: DefaultSocksListen}
	good := read("listen", &socks.Listen)
	good = read("username", &socks.Username) && good
	good = read("password", &socks.Password) && good
	if l, ok := sub.get("listen"); ok {
		at = l
	}
	if good {
		if err := socks.Check(); err != nil {
			at.wrong("%s", err)
		}
	}
	return socks
}
