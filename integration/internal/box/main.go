// Box is a program with a peer in it, as others write them with package peer: it offers the services
// of package service on the overlay, and takes the UDP of local programs there.
//
//	box -c adit.yaml [-status 127.0.0.1:8001] [-forward-udp 127.0.0.1:7007=10.9.0.3:7 ...]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/peer"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "box:", err)
		os.Exit(1)
	}
}

func run() error {
	var forwards []string
	path := flag.String("c", "", "the peer's configuration `FILE`")
	status := flag.String("status", "", "tell the peer's status as JSON by HTTP at `ADDR`")
	flag.Func("forward-udp", "send datagrams that come to a local address to one on the overlay: `LOCAL=REMOTE`", func(s string) error {
		forwards = append(forwards, s)
		return nil
	})
	flag.Parse()
	c, err := config.LoadPeer(*path)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := peer.Start(ctx, peer.Config{Peer: *c, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.Log.Level}))})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := service.Serve(p); err != nil {
		return err
	}
	if *status != "" {
		l, err := net.Listen("tcp", *status)
		if err != nil {
			return err
		}
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(p.Status()) }))
	}
	for _, f := range forwards {
		if err := forwardUDP(ctx, p, f); err != nil {
			return err
		}
	}
	if err := p.Ready(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "msg=ready", p.Addresses())
	<-ctx.Done()
	return nil
}

// forwardUDP takes what comes to the local address of spec to its remote one, and what comes back to
// the program that sent last.
func forwardUDP(ctx context.Context, p *peer.Peer, spec string) error {
	local, remote, ok := strings.Cut(spec, "=")
	if !ok {
		return errors.New("-forward-udp wants LOCAL=REMOTE")
	}
	in, err := net.ListenPacket("udp", local)
	if err != nil {
		return err
	}
	out, err := p.DialContext(ctx, "udp", remote)
	if err != nil {
		return err
	}
	var last atomic.Pointer[net.Addr]
	go pump(func(b []byte) error {
		n, from, err := in.ReadFrom(b)
		if err != nil {
			return err
		}
		last.Store(&from)
		out.Write(b[:n])
		return nil
	})
	go pump(func(b []byte) error {
		n, err := out.Read(b)
		if to := last.Load(); err == nil && to != nil {
			in.WriteTo(b[:n], *to)
		}
		return err
	})
	return nil
}

// pump calls move until the socket it reads from is closed; a datagram that cannot be sent is lost.
func pump(move func(b []byte) error) {
	b := make([]byte, 64<<10)
	for !errors.Is(move(b), net.ErrClosed) {
	}
}
