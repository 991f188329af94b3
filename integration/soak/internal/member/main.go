// Member is a member of a soak's overlay: its traffic, on the network it is told of.
//
//	member -control FILE -name web -c adit.yaml            a peer in this process
//	member -control FILE -name desk -on 10.9.0.2,fd00:9::2  the kernel's network, beside adit up with a TUN device
//	member -control FILE -name laptop -socks 127.0.0.1:1080 beside adit up with a proxy
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/integration/soak/traffic"
	"github.com/adit-overlay/adit/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	control := flag.String("control", "", "be told what to do at the Unix socket `FILE`")
	name := flag.String("name", "", "the member's `NAME`")
	path := flag.String("c", "", "be the peer of the configuration `FILE`")
	on := flag.String("on", "", "be on the kernel's network, with these `ADDRESSES`")
	socks := flag.String("socks", "", "be behind the SOCKS5 proxy at `ADDR`")
	flag.Parse()
	signal.Ignore(os.Interrupt) // of a terminal; who started this one decides when it ends

	c := traffic.Config{Name: *name}
	switch {
	case *path != "":
		p, err := open(ctx, *path)
		if err != nil {
			return err
		}
		defer p.Close()
		c.Network, c.Serves, c.Keys = p, true, traffic.KeysOf(p)
	case *on != "":
		var k traffic.Kernel
		for _, s := range strings.Split(*on, ",") {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return err
			}
			k.Addrs = append(k.Addrs, a)
		}
		c.Network, c.Serves, c.Pings = k, true, true
	case *socks != "":
		c.Network, c.Proxied = load.Socks{Proxy: *socks}, true
	default:
		return errors.New("want -c, -on or -socks")
	}
	a, err := traffic.NewAgent(c)
	if err != nil {
		return err
	}
	return a.Serve(ctx, *control)
}

func open(ctx context.Context, path string) (*peer.Peer, error) {
	c, err := config.LoadPeer(path)
	if err != nil {
		return nil, err
	}
	return peer.Start(ctx, peer.Config{Peer: *c, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
}
