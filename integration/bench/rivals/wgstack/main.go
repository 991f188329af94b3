// Wgstack is an end of the load inside wireguard-go's netstack: what a program sees that has
// wireguard-go in it, as aditstack is for adit. With -socks it is wireproxy's arrangement in its place:
// armon/go-socks5 in front of that netstack.
//
//	wgstack -c FILE -control FILE [-join 'member%d.json']
//	wgstack -c FILE -socks 127.0.0.1:1080
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/armon/go-socks5"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

func main() {
	path := flag.String("c", "", "the configuration `FILE`")
	control := flag.String("control", "", "be told what to do at the Unix socket `FILE`")
	proxy := flag.String("socks", "", "serve SOCKS5 at `ADDR`")
	join := flag.String("join", "", "configurations of the members as which to dial cold: a `FORMAT` of their number")
	flag.Parse()
	if err := run(*path, *control, *proxy, *join); err != nil {
		fmt.Fprintln(os.Stderr, "wgstack:", err)
		os.Exit(1)
	}
}

func run(path, control, proxy, members string) error {
	n, err := open(path)
	if err != nil {
		return err
	}
	defer n.Close()
	if proxy != "" {
		return serveSocks(n, proxy)
	}
	var join load.Join
	if members != "" {
		join = func(_ context.Context, member int) (load.Member, error) {
			return open(fmt.Sprintf(members, member))
		}
	}
	return load.RunAgent(control, n, join)
}

// configuration is what the file says.
type configuration struct {
	Addresses []netip.Addr
	MTU       int
	Device    string // as wireguard-go is configured at its socket
}

// network is wireguard-go's netstack as a load.Network.
type network struct {
	*netstack.Net
	device *device.Device
}

func open(path string) (*network, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var c configuration
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	tun, stack, err := netstack.CreateNetTUN(c.Addresses, nil, c.MTU)
	if err != nil {
		return nil, err
	}
	d := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	if err := d.IpcSet(c.Device); err != nil {
		d.Close()
		return nil, err
	}
	if err := d.Up(); err != nil {
		d.Close()
		return nil, err
	}
	return &network{stack, d}, nil
}

func (n *network) Close() error {
	n.device.Close()
	return nil
}

// port is that of an address without a host.
func port(address string) (int, error) {
	host, p, err := net.SplitHostPort(address)
	if err == nil && host != "" {
		err = errors.New("only all addresses are listened on")
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(p)
}

func (n *network) Listen(_, address string) (net.Listener, error) {
	p, err := port(address)
	if err != nil {
		return nil, err
	}
	return n.ListenTCP(&net.TCPAddr{Port: p})
}

func (n *network) ListenPacket(_, address string) (net.PacketConn, error) {
	p, err := port(address)
	if err != nil {
		return nil, err
	}
	return n.ListenUDP(&net.UDPAddr{Port: p})
}

// literal keeps the proxy from asking the host's resolver: all names here are addresses.
type literal struct{}

func (literal) Resolve(ctx context.Context, name string) (context.Context, net.IP, error) {
	return ctx, net.ParseIP(name), nil
}

func serveSocks(n *network, addr string) error {
	s, err := socks5.New(&socks5.Config{Dial: n.DialContext, Resolver: literal{}, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		return err
	}
	return s.ListenAndServe("tcp", addr)
}
