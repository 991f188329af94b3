package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// EnvConfig names the file of the default peer.
const EnvConfig = "ADIT_CONFIG"

// defaultPeer is the one of the package's own functions: a program that uses these has one, from first use
// to its end, as it has one resolver.
var defaultPeer struct {
	mu   sync.Mutex
	peer *Peer
}

// Default returns the default peer, opened on first use from the file that $ADIT_CONFIG names. After an
// error the next call tries again. It is closed with the program; a program that closes it gets a new one
// on the next use.
func Default(ctx context.Context) (*Peer, error) {
	d := &defaultPeer
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peer != nil && !d.peer.isClosed() {
		return d.peer, nil
	}
	path := os.Getenv(EnvConfig)
	if path == "" {
		return nil, errors.New("peer: no default peer: set $" + EnvConfig + " to the path of an adit.yaml")
	}
	p, err := Open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("peer: default peer: %w", err)
	}
	d.peer = p
	return p, nil
}

// Dial is Peer.Dial of the default peer.
func Dial(network, address string) (net.Conn, error) {
	return DialContext(context.Background(), network, address)
}

// DialContext is Peer.DialContext of the default peer.
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	p, err := Default(ctx)
	if err != nil {
		return nil, err
	}
	return p.DialContext(ctx, network, address)
}

// Listen is Peer.Listen of the default peer.
func Listen(network, address string) (net.Listener, error) {
	p, err := Default(context.Background())
	if err != nil {
		return nil, err
	}
	return p.Listen(network, address)
}
