package traffic

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Ports on which an agent serves.
const (
	HTTPPort     = 80
	StreamPort   = 7000
	RequestPort  = 7001
	DatagramPort = 7002
)

// serve offers everything on all addresses of the agent's network, until the listeners are closed.
func (a *Agent) serve() error {
	listen := func(port int, serve func(net.Listener)) error {
		l, err := a.net.Listen("tcp", ":"+strconv.Itoa(port))
		if err == nil {
			go serve(l)
		}
		return err
	}
	each := func(serve func(net.Conn)) func(net.Listener) {
		return func(l net.Listener) {
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond) // out of descriptors, perhaps
					continue
				}
				go func() {
					defer c.Close()
					serve(c)
				}()
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{pattern}/{bytes}", answerHTTP)
	web := &http.Server{Handler: mux, IdleTimeout: EndLimit, ReadHeaderTimeout: EndLimit}
	err := listen(HTTPPort, func(l net.Listener) { web.Serve(l) })
	if err == nil {
		err = listen(StreamPort, each(a.serveStream))
	}
	if err == nil {
		err = listen(RequestPort, each(a.serveRequest))
	}
	if err != nil {
		return err
	}
	c, err := a.net.ListenPacket("udp", ":"+strconv.Itoa(DatagramPort))
	if err == nil {
		go a.echo(c)
	}
	return err
}

func (a *Agent) serveStream(c net.Conn) {
	began := time.Now()
	c.SetReadDeadline(time.Now().Add(deadAfter))
	r := bufio.NewReaderSize(c, 16)
	var name []byte
	n, err := r.ReadByte()
	if err == nil {
		name = make([]byte, n)
		_, err = io.ReadFull(r, name)
	}
	var p [8]byte
	if err == nil {
		_, err = io.ReadFull(r, p[:])
	}
	if err != nil {
		return // whoever dials sees it too
	}
	out := Pattern(binary.BigEndian.Uint64(p[:]))
	t := &talk{
		conn: readsBefore{c, r}, out: ^out, in: out, rate: a.streamRate(),
		moved: a.count.moved,
	}
	if err = t.run(); err == nil {
		return
	}
	what := Witnessed
	var timeout net.Error
	switch {
	case errors.Is(err, errWrong):
		what = WrongBytes
	case errors.As(err, &timeout) && timeout.Timeout():
		what = Broken
	}
	from, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	a.findings.add(Finding{
		What: what, From: string(name), To: a.name, Flow: Stream + " " + family(from.Addr()), Began: began, At: time.Now(),
		Error: fmt.Sprintf("%v (%s)", err, t.standing()), Late: late(err),
	})
}

// readsBefore is a connection some of which is in a buffer already.
type readsBefore struct {
	net.Conn
	r *bufio.Reader
}

func (c readsBefore) Read(b []byte) (int, error) { return c.r.Read(b) }

func (c readsBefore) CloseWrite() error { return closeWrite(c.Conn) }

func (a *Agent) serveRequest(c net.Conn) {
	began := time.Now()
	if err := answer(c); errors.Is(err, errWrong) {
		a.findings.add(Finding{What: WrongBytes, To: a.name, Flow: Request, Began: began, At: time.Now(), Error: err.Error()})
	}
}

// maxFlows bounds the flows whose numbers are remembered.
const maxFlows = 1024

// echo returns datagrams to where they came from.
func (a *Agent) echo(c net.PacketConn) {
	began := time.Now()
	seen := make(map[uint64]*window)
	b := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		name, flow, number, err := readDatagram(b[:n])
		if err != nil {
			a.findings.add(Finding{What: WrongBytes, From: name, To: a.name, Flow: Datagram, Began: began, At: time.Now(), Error: err.Error()})
			continue
		}
		w := seen[flow]
		if w == nil {
			if len(seen) >= maxFlows {
				clear(seen)
			}
			w = new(window)
			seen[flow] = w
		}
		if w.note(number) == isDouble {
			a.findings.add(Finding{
				What: Twice, From: name, To: a.name, Flow: Datagram, Began: began, At: time.Now(),
				Error: "datagram " + strconv.FormatUint(number, 10) + " of flow " + strconv.FormatUint(flow, 16),
			})
		}
		c.WriteTo(b[:n], from)
	}
}

// waitAtMost reports whether all of wg ended in time.
func waitAtMost(wg *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}
