package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/socks"
)

func upCommand(e *env) *cobra.Command {
	var path, mode, socksAddr, socket string
	cmd := &cobra.Command{
		Use:   "up -c FILE",
		Short: "Join the overlay, until interrupted",
		Long: `Join the overlay as the peer that FILE describes, and stay until SIGINT or SIGTERM.

In mode tun the overlay ends in a network interface of this host, and all its
programs can use it. In mode netstack, which needs no privilege, it ends inside
this process, and programs reach it through the SOCKS5 and HTTP proxy. Mode auto
takes tun where the process may; the log says which it took and why.

A line "ready" is logged when there is a session and traffic can flow.`,
		Example: `  adit up -c adit.yaml
  adit up -c adit.yaml --mode netstack --socks 127.0.0.1:1080
  curl --socks5-hostname 127.0.0.1:1080 http://web.adit/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needConfig(cmd, path); err != nil {
				return err
			}
			c, err := config.LoadPeer(path)
			if err != nil {
				return err
			}
			if mode != "" {
				if c.Mode, err = config.ParseMode(mode); err != nil {
					return usagef("--mode: %w", err)
				}
				if c.Mode == config.ModeTUN && len(c.Advertise) > 0 {
					return usagef("--mode tun: %s advertises networks, which needs mode netstack", path)
				}
			}
			if cmd.Flags().Changed("socks") {
				if c.Socks, err = socksFlag(c.Socks, socksAddr); err != nil {
					return usagef("--socks: %w", err)
				}
			}
			if socket != "" {
				c.Control = socket
			}
			ctx, stop := untilInterrupted()
			defer stop()
			return up(ctx, *c, e.log.logger(e.stderr, c.Log))
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&mode, "mode", "", "auto, tun or netstack, whatever the file says")
	cmd.Flags().StringVar(&socksAddr, "socks", "", "offer SOCKS5 and HTTP proxies at `ADDR`, whatever the file says; empty: none")
	controlFlag(cmd, &socket, "put the control socket at `PATH`, whatever the file says; off: none")
	cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"auto", "tun", "netstack"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// socksFlag is the listener of the file with the address of the flag.
func socksFlag(said *config.Socks, addr string) (*config.Socks, error) {
	if addr == "" {
		return nil, nil
	}
	s := config.Socks{Listen: addr}
	if said != nil {
		s = *said
		s.Listen = addr
	}
	return &s, s.Check()
}

// untilInterrupted ends with the first SIGINT or SIGTERM. The second kills, as if nobody listened.
func untilInterrupted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// up runs a peer and its proxy until ctx ends.
func up(ctx context.Context, c config.Peer, log *slog.Logger) error {
	p, err := peer.Start(ctx, peer.Config{Peer: c, Logger: log})
	if err != nil {
		return err
	}
	defer p.Close()
	govern(ctx)
	spareMemory(ctx)
	st := p.Status()
	log.Info("mode", "mode", st.Mode, "because", st.ModeReason)
	log.Info("mtu", "mtu", st.MTU, "because", st.MTUReason)
	front, err := serveSocks(p, c.Socks, log)
	if err != nil {
		return err
	}
	defer front.Close()
	path := socketOf(c.Control, peerKind, c.Name, c.PrivateKey.Public())
	if s := openControl(path, p, front, log); s != nil {
		defer s.Close()
	}
	if err := p.Ready(ctx); err == nil {
		log.Info("ready", "mode", st.Mode, "addresses", fmt.Sprint(st.Addresses), "udp", st.UDPAddress, "socks", front.addr, "public_key", st.PublicKey)
	}
	select {
	case err := <-front.failed:
		return err
	case <-ctx.Done():
	}
	log.Info("ending")
	return nil
}

// A front is a running proxy, or none.
type front struct {
	server *socks.Server
	addr   string
	failed chan error // a listener that ended by itself
}

// serveSocks starts the proxy s describes in front of p; none for nil.
func serveSocks(p *peer.Peer, s *config.Socks, log *slog.Logger) (*front, error) {
	f := &front{failed: make(chan error, 1)}
	if s == nil {
		return f, nil
	}
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("the SOCKS5 proxy cannot listen at %s: the port is in use; choose another with --socks", s.Listen)
		}
		return nil, fmt.Errorf("the SOCKS5 proxy cannot listen: %w", err)
	}
	f.addr = l.Addr().String()
	f.server = &socks.Server{
		Dial: p.DialContext, Username: s.Username, Password: s.Password, Logger: log,
		MaxConns: s.MaxConnections, MaxConnsPerClient: s.MaxConnectionsPerClient, MaxDialsPerHost: s.MaxDialsPerHost,
		HandshakeTimeout: s.HandshakeTimeout, IdleTimeout: s.IdleTimeout,
	}
	go func() {
		if err := f.server.Serve(l); !errors.Is(err, net.ErrClosed) {
			f.failed <- fmt.Errorf("the SOCKS5 proxy: %w", err)
		}
	}()
	return f, nil
}

func (f *front) Close() {
	if f.server != nil {
		f.server.Close()
	}
}
