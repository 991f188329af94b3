package socks

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// CheckListen says whether a proxy may listen at addr ("host:port") with these
// credentials. A proxy without a password is for the machine it runs on: an
// address that is not loopback is refused without one, since everyone who
// could reach it could use it. The name "localhost" counts as loopback; Serve
// looks again at what it became.
func CheckListen(addr, username, password string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("proxy address %q: want host:port, such as 127.0.0.1:1080", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("proxy address %q: port %q is not a number from 0 to 65535", addr, port)
	}
	if err := checkCredentials(username, password); err != nil {
		return err
	}
	if password != "" || isLoopback(host) {
		return nil
	}
	return fmt.Errorf("proxy address %q: not on loopback and without a password, so everyone who can reach it could use it; "+
		"set a username and password, or listen on 127.0.0.1:%s", addr, port)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// checkCredentials refuses what a client could not send: RFC 1929 gives name
// and password 1 to 255 bytes each, and RFC 7617 ends the name at a colon.
func checkCredentials(username, password string) error {
	switch {
	case username == "" && password == "":
		return nil
	case password == "":
		return errors.New("proxy username without a password: set both or neither")
	case username == "":
		return errors.New("proxy password without a username: set both or neither")
	case len(username) > 255 || len(password) > 255:
		return errors.New("proxy username or password is longer than 255 bytes, which SOCKS5 cannot carry")
	case strings.Contains(username, ":"):
		return errors.New("proxy username contains a colon, which HTTP cannot carry")
	}
	return nil
}

// errBadDestination marks a destination that no dial function need see.
var errBadDestination = errors.New("malformed destination")

// checkDestination refuses what is no "host:port" with a port from 1, and
// names with bytes that would be trouble in a log or a resolver. Names are ASCII:
// of any other net/http would dial another form than Allow was asked about.
func checkDestination(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || len(host) > 255 {
		return errBadDestination
	}
	for i := range len(host) {
		if host[i] <= ' ' || host[i] >= 0x7f {
			return errBadDestination
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errBadDestination
	}
	return nil
}
