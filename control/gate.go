package control

import (
	"fmt"
	"net"
	"os"
	"sync"
)

// A gate is a listener that lets in the owner and root, and not too many at a time.
type gate struct {
	net.Listener
	s     *Server
	check func(net.Conn) error // nil: everybody may
	slots chan struct{}        // one a connection
}

func (s *Server) gate(l net.Listener, check func(net.Conn) error) *gate {
	return &gate{Listener: l, s: s, check: check, slots: make(chan struct{}, maxConns)}
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.s.counters.connections.Add(1)
		if g.check != nil {
			if err := g.check(c); err != nil {
				g.s.counters.refusedUsers.Add(1)
				g.s.log.Debug("control: connection refused", "because", err)
				c.Close()
				continue
			}
		}
		select {
		case g.slots <- struct{}{}:
			return &admitted{Conn: c, leave: sync.OnceFunc(func() { <-g.slots })}, nil
		default:
			g.s.counters.overLimit.Add(1)
			c.Close()
		}
	}
}

// admitted gives its place up when it is closed.
type admitted struct {
	net.Conn
	leave func()
}

func (a *admitted) Close() error {
	defer a.leave()
	return a.Conn.Close()
}

// checkUser refuses whoever is neither this process's user nor root. Where the system does not tell who it is, the
// permissions of the socket and its folder must do.
func checkUser(c net.Conn) error {
	uid, told, err := userOf(c.(*net.UnixConn))
	switch {
	case err != nil:
		return fmt.Errorf("its user is not known: %w", err)
	case told && uid != 0 && uid != os.Geteuid():
		return fmt.Errorf("it is of user %d", uid)
	}
	return nil
}
