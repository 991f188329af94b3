package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
)

func relayCommand(e *env) *cobra.Command {
	var path, socket string
	cmd := &cobra.Command{
		Use:   "relay -c FILE",
		Short: "Carry traffic between members, until interrupted",
		Long: `Be the relay that FILE describes, until SIGINT or SIGTERM. A relay stands where
all members can reach it by UDP. It tells members of each other and forwards what
they seal for each other; it cannot read or change it.`,
		Example: `  adit relay -c relay.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needConfig(cmd, path); err != nil {
				return err
			}
			c, err := config.LoadRelay(path)
			if err != nil {
				return err
			}
			if socket != "" {
				c.Control = socket
			}
			ctx, stop := untilInterrupted()
			defer stop()
			return runRelay(ctx, *c, e.log.logger(e.stderr, c.Log))
		},
	}
	configFlag(cmd, &path)
	controlFlag(cmd, &socket, "put the control socket at `PATH`, whatever the file says; off: none")
	return cmd
}

// runRelay runs a relay until ctx ends.
func runRelay(ctx context.Context, c config.Relay, log *slog.Logger) error {
	r, err := peer.StartRelay(ctx, peer.RelayConfig{Relay: c, Logger: log})
	if err != nil {
		return err
	}
	defer r.Close()
	collectOften()
	spareMemory(ctx)
	govern(ctx)
	st := r.Status()
	if st.Mode != "" {
		log.Info("mode", "mode", st.Mode, "because", st.ModeReason)
		log.Info("mtu", "mtu", st.MTU, "because", st.MTUReason)
	}
	path := socketOf(c.Control, relayKind, c.Name, c.PrivateKey.Public())
	if s := openControl(path, r, nil, log); s != nil {
		defer s.Close()
	}
	log.Info("ready", "mode", "relay", "udp", st.UDPAddress, "members", len(c.Members), "addresses", fmt.Sprint(st.Addresses), "public_key", st.PublicKey)
	<-ctx.Done()
	log.Info("ending")
	return nil
}
