package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
)

func checkCommand(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Say whether a configuration is right, and what it says",
		Long: `Read the configuration of a peer or of a relay, and the key files it names, as
adit up and adit relay would, and print what they say. Nothing is opened or sent.

Errors are printed one a line, with the line of the file, the key, and what
would be right; the exit code is then 2.`,
		Example: `  adit check -c adit.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needConfig(cmd, path); err != nil {
				return err
			}
			file, err := config.Load(path)
			if err != nil {
				return err
			}
			if file.Relay != nil {
				return printRelay(e.stdout, path, file.Relay)
			}
			return printPeer(e.stdout, path, file.Peer)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// summary prints rows of a heading and what stands under it.
type summary struct{ *tabwriter.Writer }

func newSummary(w io.Writer, title string, args ...any) summary {
	fmt.Fprintf(w, title+"\n", args...)
	return summary{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (s summary) row(heading string, cells ...string) {
	fmt.Fprintf(s, "  %s\t%s\n", heading, strings.Join(cells, "\t"))
}

// maxListed entries of a list are shown: a relay may have thousands of members.
const maxListed = 20

func (s summary) rest(n int) {
	if n > maxListed {
		s.row("", fmt.Sprintf("and %d more", n-maxListed))
	}
}

func printPeer(w io.Writer, path string, p *config.Peer) error {
	s := newSummary(w, "%s is right: the configuration of a peer", path)
	if p.Name != "" {
		s.row("name", p.Name)
	}
	s.row("public key", p.PrivateKey.Public().String())
	s.row("addresses", prefixes(p.Addresses))
	s.row("mode", mode(p.Mode, p.Interface))
	s.row("listen", p.Listen+" (UDP)")
	s.row("mtu", mtu(p.MTU, (&peer.Config{Peer: *p}).OverlayMTU))
	s.row("timers", timers(p.RekeyAfter, p.Keepalive))
	if !p.PresharedKey.IsZero() {
		s.row("pre-shared key", "yes")
	}
	if len(p.Advertise) > 0 {
		s.row("advertise", prefixes(p.Advertise))
	}
	if p.Socks != nil {
		s.row("socks", p.Socks.String())
	}
	for i, r := range p.Relays {
		if i < maxListed {
			s.row("relay", "-", r.PublicKey.String(), r.Endpoint)
		}
	}
	s.rest(len(p.Relays))
	for i, r := range p.Peers {
		if i < maxListed {
			s.row("peer", orDash(r.Name), r.PublicKey.String(), orDash(r.Endpoint), prefixes(r.AllowedIPs))
		}
	}
	s.rest(len(p.Peers))
	if family, because := (&peer.Config{Peer: *p}).Beside(); family != "" {
		s.row("warning", family+" goes beside the tunnel: "+because)
	}
	return s.Flush()
}

func printRelay(w io.Writer, path string, r *config.Relay) error {
	s := newSummary(w, "%s is right: the configuration of a relay", path)
	if r.Name != "" {
		s.row("name", r.Name)
	}
	s.row("public key", r.PrivateKey.Public().String())
	s.row("listen", r.Listen+" (UDP)")
	if len(r.Addresses) > 0 {
		s.row("addresses", prefixes(r.Addresses))
		s.row("mode", mode(r.Mode, r.Interface))
		s.row("mtu", mtu(r.MTU, (&peer.RelayConfig{Relay: *r}).OverlayMTU))
	}
	s.row("timers", timers(r.RekeyAfter, r.Keepalive))
	if !r.PresharedKey.IsZero() {
		s.row("pre-shared key", "yes")
	}
	s.row("limits", limits(r.Limits))
	for i, m := range r.Members {
		if i < maxListed {
			s.row("member", m.Name, m.PublicKey.String(), prefixes(m.AllowedIPs))
		}
	}
	s.rest(len(r.Members))
	return s.Flush()
}

func mode(m config.Mode, iface string) string {
	switch m {
	case config.ModeTUN:
		return fmt.Sprintf("tun (interface %s)", iface)
	case config.ModeNetstack:
		return "netstack (no root needed)"
	}
	return fmt.Sprintf("auto (tun with interface %s where allowed, else netstack)", iface)
}

// mtu says what is configured, and what is chosen if that is nothing.
func mtu(configured int, chosen func() (int, string)) string {
	if configured != 0 {
		return fmt.Sprint(configured)
	}
	n, because := chosen()
	return fmt.Sprintf("auto (%d here: %s)", n, because)
}

func timers(rekey, keepalive time.Duration) string {
	return fmt.Sprintf("new keys every %s, keepalive every %s", short(rekey), short(keepalive))
}

// short writes a duration as people do: 5m, not 5m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

func limits(l config.Limits) string {
	bytes := "no limit of bytes"
	if l.BytesPerSecondPerMember > 0 {
		bytes = fmt.Sprintf("%d bytes/s", l.BytesPerSecondPerMember)
	}
	return fmt.Sprintf("%d circuits and %s a member", l.CircuitsPerMember, bytes)
}

func prefixes(ps []netip.Prefix) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.String()
	}
	return strings.Join(words, " ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
