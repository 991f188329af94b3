package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/wire"
)

func demoCommand(e *env) *cobra.Command {
	var once bool
	var socksAddr string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show an overlay at work, on this machine alone",
		Long: `Start a relay and two peers in this process, without root, configuration or
network. They can reach each other only through the overlay: one serves a web page
at http://10.9.0.3/, the other offers a SOCKS5 proxy to it.

With --once the demo fetches the page itself, measures latency and throughput on
the way peer, relay, peer, prints what it saw, and exits.`,
		Example: `  adit demo
  curl --socks5-hostname 127.0.0.1:1080 http://web.adit/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if once && !cmd.Flags().Changed("socks") {
				socksAddr = "127.0.0.1:0" // nobody needs to know the port
			}
			s := &config.Socks{Listen: socksAddr}
			if err := s.Check(); err != nil {
				return usagef("--socks: %w", err)
			}
			ctx, stop := untilInterrupted()
			defer stop()
			d, err := startDemo(ctx, s, e.log.logger(e.stderr, config.Log{Level: slog.LevelWarn}))
			if err != nil {
				return err
			}
			defer d.Close()
			if once {
				return d.once(ctx, e.stdout)
			}
			d.invite(e.stdout)
			<-ctx.Done()
			return nil
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "try it out, print what was seen, and exit")
	cmd.Flags().StringVar(&socksAddr, "socks", config.DefaultSocksListen, "where the SOCKS5 proxy listens")
	return cmd
}

// A demo is a relay, a peer that serves a page, and a peer with a proxy.
type demo struct {
	relay       *peer.Relay
	web, laptop *peer.Peer
	front       *front
	server      *http.Server
}

// The members of the demo, on the overlay.
var (
	demoLaptop = []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd00:9::2/64")}
	demoWeb    = []netip.Prefix{netip.MustParsePrefix("10.9.0.3/24"), netip.MustParsePrefix("fd00:9::3/64")}
)

func startDemo(ctx context.Context, s *config.Socks, log *slog.Logger) (d *demo, err error) {
	d = &demo{}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	var keys [3]wire.PrivateKey // made for this demo, and forgotten with it
	for i := range keys {
		if keys[i], err = wire.GeneratePrivateKey(nil); err != nil {
			return d, err
		}
	}
	relayKey, webKey, laptopKey := keys[0], keys[1], keys[2]
	d.relay, err = peer.StartRelay(ctx, peer.RelayConfig{Logger: log, Relay: config.Relay{
		PrivateKey: relayKey, Listen: "127.0.0.1:0",
		Members: []config.Member{
			{Name: "laptop", PublicKey: laptopKey.Public(), AllowedIPs: hosts(demoLaptop)},
			{Name: "web", PublicKey: webKey.Public(), AllowedIPs: hosts(demoWeb)},
		},
	}})
	if err != nil {
		return d, err
	}
	member := func(name string, key wire.PrivateKey, addresses []netip.Prefix) (*peer.Peer, error) {
		return peer.Start(ctx, peer.Config{Logger: log, Peer: config.Peer{
			Name: name, Mode: config.ModeNetstack, PrivateKey: key, Addresses: addresses, Listen: "127.0.0.1:0",
			Relays: []config.RelayEndpoint{{PublicKey: relayKey.Public(), Endpoint: d.relay.Status().UDPAddress.String()}},
		}})
	}
	if d.web, err = member("web", webKey, demoWeb); err != nil {
		return d, err
	}
	if d.laptop, err = member("laptop", laptopKey, demoLaptop); err != nil {
		return d, err
	}
	if err = d.serve(); err != nil {
		return d, err
	}
	if d.front, err = serveSocks(d.laptop, s, log); err != nil {
		return d, err
	}
	for _, p := range []*peer.Peer{d.web, d.laptop} {
		if err = p.Ready(ctx); err != nil {
			return d, err
		}
	}
	return d, nil
}

func hosts(addresses []netip.Prefix) []netip.Prefix {
	var own []netip.Prefix
	for _, a := range addresses {
		own = append(own, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
	}
	return own
}

const demoPage = `<!doctype html>
<title>adit</title>
<h1>It works</h1>
<p>This page came from %s to %s through a SOCKS5 proxy, a TCP/IP stack
inside a process, an encrypted session and a relay that could not read it. No root was needed.</p>
`

// serve starts the web server and an echo service on the overlay addresses of the peer web.
func (d *demo) serve() error {
	pages, err := d.web.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, demoPage, r.Context().Value(http.LocalAddrContextKey), r.RemoteAddr)
	})
	mux.HandleFunc("GET /bulk", func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 256<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go d.server.Serve(pages)
	echo, err := d.web.Listen("tcp", ":7")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return nil
}

// invite says what to try.
func (d *demo) invite(w io.Writer) {
	fmt.Fprintf(w, `A relay and two peers are running in this process. They know each other only by
the overlay, and nothing here needed root.

  web       10.9.0.3, fd00:9::3   serves a page
  laptop    10.9.0.2, fd00:9::2   offers a SOCKS5 and HTTP proxy at %[1]s

Try, in another terminal:

  curl --socks5-hostname %[1]s http://web.adit/
  curl --socks5-hostname %[1]s http://10.9.0.3/
  curl --socks5-hostname %[1]s 'http://[fd00:9::3]/'

Ctrl-C ends it.
`, d.front.addr)
}

// once tries it out.
func (d *demo) once(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	proxy := &url.URL{Scheme: "socks5h", Host: d.front.addr}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}}
	defer client.CloseIdleConnections()
	for _, page := range []string{"http://web.adit/", "http://10.9.0.3/", "http://[fd00:9::3]/"} {
		start := time.Now()
		n, err := fetch(ctx, client, page)
		if err != nil {
			return fmt.Errorf("fetching %s through SOCKS5: %w", page, err)
		}
		fmt.Fprintf(w, "fetched     %-22s %d bytes in %v\n", page, n, time.Since(start).Round(10*time.Microsecond))
	}
	p50, p99, err := d.latency(ctx)
	if err != nil {
		return fmt.Errorf("measuring latency: %w", err)
	}
	fmt.Fprintf(w, "latency     64-byte TCP round trip, peer to peer by the relay: p50 %v, p99 %v\n", p50, p99)
	rate, err := throughput(ctx, client)
	if err != nil {
		return fmt.Errorf("measuring throughput: %w", err)
	}
	fmt.Fprintf(w, "throughput  one TCP stream, by SOCKS5 and the relay: %.2f Gbit/s\n", rate/1e9)
	d.status(w)
	return nil
}

func fetch(ctx context.Context, client *http.Client, page string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", page, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, errors.New(resp.Status)
	}
	return io.Copy(io.Discard, resp.Body)
}

// latency is the time of a round trip, as two peers see it.
func (d *demo) latency(ctx context.Context) (p50, p99 time.Duration, err error) {
	c, err := d.laptop.DialContext(ctx, "tcp", "web.adit:7")
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer stop()
	var took []time.Duration
	b := make([]byte, 64)
	for range 1000 {
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			return 0, 0, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond), nil
}

// throughput is how many bits a second come through the proxy.
func throughput(ctx context.Context, client *http.Client) (float64, error) {
	const measured = 2 * time.Second
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://10.9.0.3/bulk", nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b := make([]byte, 256<<10)
	var got int
	for start := time.Now(); ; {
		n, err := resp.Body.Read(b)
		if got += n; err != nil {
			return 0, err
		}
		if took := time.Since(start); took >= measured {
			return float64(got) * 8 / took.Seconds(), nil
		}
	}
}

// status says what the three are and have done.
func (d *demo) status(w io.Writer) {
	r := d.relay.Status()
	fmt.Fprintf(w, "relay       %v: %d of %d members online, forwarded %d sealed datagrams, %d MB\n",
		r.UDPAddress, r.Relay.Online, r.Relay.Members, r.Relay.Datagrams, r.Relay.Bytes/1e6)
	for _, p := range []*peer.Peer{d.web, d.laptop} {
		st := p.Status()
		fmt.Fprintf(w, "%-11s %s, %v, UDP %v\n", st.Name, st.Mode, st.Addresses, st.UDPAddress)
		for _, r := range st.Remotes {
			if r.Relay || !r.Connected {
				continue
			}
			fmt.Fprintf(w, "            session with %s by relay %v: sent %d packets, received %d\n", r.Name, d.relay.Status().UDPAddress, r.Traffic.SentPackets, r.Traffic.ReceivedPackets)
		}
	}
}

// Close ends all of it.
func (d *demo) Close() {
	if d.front != nil {
		d.front.Close()
	}
	if d.server != nil {
		d.server.Close()
	}
	for _, p := range []*peer.Peer{d.laptop, d.web} {
		if p != nil {
			p.Close()
		}
	}
	if d.relay != nil {
		d.relay.Close()
	}
}
