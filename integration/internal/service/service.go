package service

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Ports on which Serve listens.
const (
	FilePort    = "80" // HTTP: Files
	EchoPort    = "7"  // TCP and UDP: what is received is sent back
	DiscardPort = "9"  // TCP: what is received is thrown away
)

// A Network is where Serve listens: a peer, or a host of a lab.
type Network interface {
	Listen(network, address string) (net.Listener, error)
	ListenPacket(network, address string) (net.PacketConn, error)
}

// Serve offers everything on all addresses of n, until the listeners are closed.
func Serve(n Network) error {
	files, err := n.Listen("tcp", ":"+FilePort)
	if err != nil {
		return err
	}
	dump, err := n.Listen("tcp", ":"+DiscardPort)
	if err != nil {
		return err
	}
	go http.Serve(files, Files())
	go serveConns(dump, discard)
	return Echo(n, EchoPort)
}

// Echo sends back what comes to a port by TCP and by UDP.
func Echo(n Network, port string) error {
	conns, err := n.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	packets, err := n.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	go serveConns(conns, echo)
	go echoPackets(packets)
	return nil
}

// Files answers requests:
//
//	/bytes/N    the file of N bytes
//	/steady/N   an endless file, N bytes of it each second
//	/whoami     the address the request came from
func Files() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes/{size}", func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.ParseInt(r.PathValue("size"), 10, 64)
		if err != nil || size < 0 {
			http.Error(w, "want /bytes/N", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		io.CopyBuffer(w, File(size), make([]byte, 256<<10))
	})
	mux.HandleFunc("GET /steady/{rate}", func(w http.ResponseWriter, r *http.Request) {
		rate, err := strconv.ParseInt(r.PathValue("rate"), 10, 64)
		if err != nil || rate < 100 {
			http.Error(w, "want /steady/N", http.StatusBadRequest)
			return
		}
		steady(w, r, rate)
	})
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })
	return mux
}

// steady sends a hundredth of rate a hundred times a second, later if the way is blocked.
func steady(w http.ResponseWriter, r *http.Request, rate int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	out := http.NewResponseController(w)
	f := File(1 << 62)
	for {
		if _, err := io.CopyN(w, f, rate/100); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

func serveConns(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

func echo(c net.Conn) { io.Copy(c, c) }

// discard reads by large pieces, which io.Discard by itself would not.
func discard(c net.Conn) {
	b := make([]byte, 256<<10)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

func echoPackets(c net.PacketConn) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		c.WriteTo(b[:n], from)
	}
}
