package peer_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func TestPing(t *testing.T) {
	l := newLab(t, onLoopback, "laptop", "web")
	laptop, _ := l.pair("laptop", "web")
	web := addresses(1)
	relay := l.key.Public()
	for _, host := range []string{"web.adit", "web", web[0].Addr().String(), web[1].Addr().String()} {
		e, err := laptop.Ping(soon(t), host)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if e.Name != "web" || e.Via != relay.String() || e.Endpoint != l.relay.Status().UDPAddress || e.Time <= 0 || e.Self {
			t.Errorf("%s: %+v", host, e)
		}
		if a, err := netip.ParseAddr(host); err == nil && e.Address != a {
			t.Errorf("%s: %+v", host, e)
		}
	}
	if e, err := laptop.Ping(soon(t), "laptop.adit"); err != nil || !e.Self || e.PublicKey != laptop.PublicKey() {
		t.Errorf("itself: %+v, %v", e, err)
	}
	if e, err := l.relay.Ping(soon(t), "web"); err != nil || e.Name != "web" || !e.Endpoint.IsValid() {
		t.Errorf("from the relay, which has no stack: %+v, %v", e, err)
	}
}

func TestPingOfNobody(t *testing.T) {
	l := newLab(t, onLoopback, "laptop", "web")
	laptop := l.startOnline("laptop")[0]
	var dns *net.DNSError
	if _, err := laptop.Ping(soon(t), "nobody.adit"); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("a name nobody has: %v", err)
	}
	if _, err := laptop.Ping(soon(t), ".adit"); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("no name: %v", err)
	}
	if _, err := l.relay.Ping(soon(t), "nobody"); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("from the relay: %v", err)
	}
	if _, err := laptop.Ping(soon(t), "10.9.0.77"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("an address nobody has: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.relay.Ping(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a member that is not there: %v", err)
	}
}
