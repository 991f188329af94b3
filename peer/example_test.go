package peer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/wire"
)

// examplePeers starts two members of an overlay, joined by a pipe. Their names are laptop and web, their
// addresses 10.9.0.2 and 10.9.0.3.
func examplePeers() (laptop, web *peer.Peer) {
	laptopKey, webKey := exampleKey(), exampleKey()
	start := func(key wire.PrivateKey, address string, other config.Remote) *peer.Peer {
		p, err := peer.Start(context.Background(), peer.Config{
			Peer: config.Peer{
				Mode:       config.ModeNetstack,
				PrivateKey: key,
				Addresses:  []netip.Prefix{netip.MustParsePrefix(address)},
				Peers:      []config.Remote{other},
			},
			NoUDP: true,
		})
		if err != nil {
			log.Fatal(err)
		}
		return p
	}
	laptop = start(laptopKey, "10.9.0.2/24", config.Remote{
		Name: "web", PublicKey: webKey.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/32")},
	})
	web = start(webKey, "10.9.0.3/24", config.Remote{
		Name: "laptop", PublicKey: laptopKey.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")},
	})
	a, b := net.Pipe()
	if err := errors.Join(laptop.Link(a), web.Link(b)); err != nil {
		log.Fatal(err)
	}
	return laptop, web
}

func exampleKey() wire.PrivateKey {
	key, err := wire.GeneratePrivateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	return key
}

// A peer that knows where another is reaches it directly, over UDP.
func ExampleStart() {
	laptopKey, webKey := exampleKey(), exampleKey()

	web, err := peer.Start(context.Background(), peer.Config{Peer: config.Peer{
		Name:       "web",
		Mode:       config.ModeNetstack, // ask for no TUN device
		PrivateKey: webKey,
		Addresses:  []netip.Prefix{netip.MustParsePrefix("10.9.0.3/24")},
		Listen:     "127.0.0.1:0",
		Peers: []config.Remote{{
			Name:       "laptop",
			PublicKey:  laptopKey.Public(),
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")},
		}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()

	laptop, err := peer.Start(context.Background(), peer.Config{Peer: config.Peer{
		Name:       "laptop",
		Mode:       config.ModeNetstack,
		PrivateKey: laptopKey,
		Addresses:  []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")},
		Listen:     "127.0.0.1:0",
		Peers: []config.Remote{{
			Name:       "web",
			PublicKey:  webKey.Public(),
			Endpoint:   web.Status().UDPAddress.String(),
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/32")},
		}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer laptop.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(laptop.Ready(ctx))
	// Output: <nil>
}

// Open reads the file that the command reads.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "adit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pem, err := exampleKey().MarshalPEM() // what "adit keygen --out laptop.key" writes
	if err != nil {
		log.Fatal(err)
	}
	file := filepath.Join(dir, "adit.yaml")
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "laptop.key"), pem, 0o600),
		os.WriteFile(file, []byte(`
name: laptop
mode: netstack
private_key_file: laptop.key
addresses: [10.9.0.2/24, "fd00:9::2/64"]
listen: "127.0.0.1:0"
`), 0o600))
	if err != nil {
		log.Fatal(err)
	}

	p, err := peer.Open(context.Background(), file)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	fmt.Println(p.Status().Name, p.Addresses())
	// Output: laptop [10.9.0.2/24 fd00:9::2/64]
}

func ExamplePeer_Dial() {
	laptop, web := examplePeers()
	defer laptop.Close()
	defer web.Close()
	l, err := web.Listen("tcp", ":7")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "hello from "+conn.LocalAddr().String())
	}()

	conn, err := laptop.Dial("tcp", "web.adit:7") // or "10.9.0.3:7"
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	fmt.Printf("%s, %v\n", text, err)
	// Output: hello from 10.9.0.3:7, <nil>
}

// Errors are those of package net.
func ExamplePeer_DialContext() {
	laptop, web := examplePeers()
	defer laptop.Close()
	defer web.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := laptop.DialContext(ctx, "tcp", "web.adit:81")
	fmt.Println(err)
	_, err = laptop.DialContext(ctx, "tcp", "printer.adit:80")
	var dns *net.DNSError
	fmt.Println(errors.As(err, &dns) && dns.IsNotFound)
	// Output:
	// dial tcp 10.9.0.3:81: connect: connection refused
	// true
}

func ExamplePeer_Listen() {
	laptop, web := examplePeers()
	defer laptop.Close()
	defer web.Close()

	l, err := web.Listen("tcp", ":80") // on the overlay, and nowhere else
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "hello, %s", host) // no other peer can have this address
	}))

	resp, err := laptop.HTTPClient().Get("http://10.9.0.3/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fmt.Printf("%s, %v\n", text, err)
	// Output: hello, 10.9.0.2, <nil>
}

func ExamplePeer_ListenPacket() {
	laptop, web := examplePeers()
	defer laptop.Close()
	defer web.Close()

	service, err := web.ListenPacket("udp", "10.9.0.3:53")
	if err != nil {
		log.Fatal(err)
	}
	client, err := laptop.Dial("udp", "10.9.0.3:53")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(client, "what time is it?"); err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 1500)
	n, from, err := service.ReadFrom(b)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s asks: %s\n", from.(*net.UDPAddr).IP, b[:n])
	// Output: 10.9.0.2 asks: what time is it?
}

func ExamplePeer_HTTPClient() {
	laptop, web := examplePeers()
	defer laptop.Close()
	defer web.Close()
	l, err := web.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, http.NotFoundHandler())

	resp, err := laptop.HTTPClient().Get("http://web.adit/page")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 404 Not Found
}

func ExamplePeer_Status() {
	laptop, web := examplePeers()
	defer laptop.Close()
	defer web.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := laptop.Ready(ctx); err != nil {
		log.Fatal(err)
	}

	st := laptop.Status()
	fmt.Println(st.Mode, st.Addresses)
	for _, r := range st.Remotes {
		fmt.Println(r.Name, r.AllowedIPs, r.Connected)
	}
	// Output:
	// netstack [10.9.0.2/24]
	// web [10.9.0.3/32] true
}

func ExamplePeer_Close() {
	laptop, web := examplePeers()
	defer web.Close()
	l, err := laptop.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(laptop.Close())
	_, err = l.Accept()
	fmt.Println(errors.Is(err, net.ErrClosed))
	_, err = laptop.Dial("tcp", "10.9.0.3:80")
	fmt.Println(errors.Is(err, net.ErrClosed))
	// Output:
	// <nil>
	// true
	// true
}

// Any connection can carry the overlay. Here it is a pipe; it may as well be a TLS connection to a host that
// lets nothing else in.
func ExamplePeer_Link() {
	laptopKey, webKey := exampleKey(), exampleKey()
	start := func(key wire.PrivateKey, address string, other wire.PublicKey, allowed string) *peer.Peer {
		p, err := peer.Start(context.Background(), peer.Config{
			Peer: config.Peer{
				Mode:       config.ModeNetstack,
				PrivateKey: key,
				Addresses:  []netip.Prefix{netip.MustParsePrefix(address)},
				// Without an endpoint: whoever is at the other end of a Link, if it has the key.
				Peers: []config.Remote{{PublicKey: other, AllowedIPs: []netip.Prefix{netip.MustParsePrefix(allowed)}}},
			},
			NoUDP: true,
		})
		if err != nil {
			log.Fatal(err)
		}
		return p
	}
	laptop := start(laptopKey, "10.9.0.2/24", webKey.Public(), "10.9.0.3/32")
	defer laptop.Close()
	web := start(webKey, "10.9.0.3/24", laptopKey.Public(), "10.9.0.2/32")
	defer web.Close()

	a, b := net.Pipe()
	fmt.Println(laptop.Link(a), web.Link(b))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(laptop.Ready(ctx), web.Ready(ctx))
	// Output:
	// <nil> <nil>
	// <nil> <nil>
}

// A program that is one member of one overlay needs no Peer of its own: $ADIT_CONFIG names the file.
func ExampleDial() {
	dir, err := os.MkdirTemp("", "adit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pem, err := exampleKey().MarshalPEM()
	if err != nil {
		log.Fatal(err)
	}
	file := filepath.Join(dir, "adit.yaml")
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "web.key"), pem, 0o600),
		os.WriteFile(file, []byte(`
name: web
mode: netstack
private_key_file: web.key
addresses: [10.9.0.3/24]
listen: "127.0.0.1:0"
`), 0o600),
		os.Setenv("ADIT_CONFIG", file)) // by the user, before the program starts
	if err != nil {
		log.Fatal(err)
	}
	defer os.Unsetenv("ADIT_CONFIG")

	l, err := peer.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	conn, err := peer.Dial("tcp", "web.adit:80")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port, conn.RemoteAddr())

	p, err := peer.Default(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Close()) // a program may leave this to its end
	// Output:
	// 80 10.9.0.3:80
	// <nil>
}

// A peer that knows its relay reaches every member of it.
func ExampleStartRelay() {
	relayKey, laptopKey, webKey := exampleKey(), exampleKey(), exampleKey()
	relay, err := peer.StartRelay(context.Background(), peer.RelayConfig{Relay: config.Relay{
		PrivateKey: relayKey,
		Listen:     "127.0.0.1:0",
		Members: []config.Member{
			{Name: "laptop", PublicKey: laptopKey.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")}},
			{Name: "web", PublicKey: webKey.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/32")}},
		},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer relay.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	member := func(key wire.PrivateKey, address string) *peer.Peer {
		p, err := peer.Start(ctx, peer.Config{Peer: config.Peer{
			Mode:       config.ModeNetstack,
			PrivateKey: key,
			Addresses:  []netip.Prefix{netip.MustParsePrefix(address)},
			Listen:     "127.0.0.1:0",
			Relays:     []config.RelayEndpoint{{PublicKey: relay.PublicKey(), Endpoint: relay.Status().UDPAddress.String()}},
		}})
		if err != nil {
			log.Fatal(err)
		}
		return p
	}
	laptop, web := member(laptopKey, "10.9.0.2/24"), member(webKey, "10.9.0.3/24")
	defer laptop.Close()
	defer web.Close()

	addresses, err := laptop.LookupHost(ctx, "web.adit")
	fmt.Println(addresses, err)
	// Output: [10.9.0.3] <nil>
}

func ExampleOpenRelay() {
	dir, err := os.MkdirTemp("", "adit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pem, err := exampleKey().MarshalPEM()
	if err != nil {
		log.Fatal(err)
	}
	file := filepath.Join(dir, "relay.yaml")
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "relay.key"), pem, 0o600),
		os.WriteFile(file, []byte(`
private_key_file: relay.key
listen: "127.0.0.1:0"
members:
  - {name: laptop, public_key: "`+exampleKey().Public().String()+`", allowed_ips: [10.9.0.2/32]}
`), 0o600))
	if err != nil {
		log.Fatal(err)
	}

	r, err := peer.OpenRelay(context.Background(), file)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	for _, m := range r.Status().Remotes {
		fmt.Println(m.Name, m.AllowedIPs, m.Connected)
	}
	// Output: laptop [10.9.0.2/32] false
}
