package load

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Where an end serves what the other end asks for.
const (
	portStream = 7001 // TCP: takes or gives a stream (stream.go)
	portEcho   = 7002 // TCP: gives back what it gets
	portHTTP   = 7080 // TCP: 128 bytes by HTTP
	portUDP    = 7003 // UDP: echoes and counts (udp.go)
)

func at(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// Serve begins to serve on all addresses of a network, and returns. It serves until the process ends.
func Serve(n Network) error {
	for _, s := range []struct {
		port  int
		serve func(net.Listener) error
	}{
		{portStream, each(serveStream)},
		{portEcho, each(serveEcho)},
		{portHTTP, serveHTTP},
	} {
		l, err := n.Listen("tcp", at("", s.port))
		if err != nil {
			return fmt.Errorf("serving: %w", err)
		}
		go s.serve(l)
	}
	pc, err := n.ListenPacket("udp", at("", portUDP))
	if err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	go serveUDP(pc)
	return nil
}

// each serves every connection of a listener in a goroutine of its own.
func each(serve func(net.Conn)) func(net.Listener) error {
	return func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if err != nil { // too many connections, perhaps; there will be fewer
				time.Sleep(10 * time.Millisecond)
				continue
			}
			go serve(c)
		}
	}
}

func serveEcho(c net.Conn) {
	defer c.Close()
	b := make([]byte, 2048)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

const bodyLen = 128

func serveHTTP(l net.Listener) error {
	body := []byte(strings.Repeat("x", bodyLen-1) + "\n")
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Date"] = nil
		h.Set("Content-Length", strconv.Itoa(bodyLen))
		w.Write(body)
	})}
	return server.Serve(l)
}
