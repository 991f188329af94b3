package config

import (
	"net/netip"
	"time"
)

// AdvertiseLimits bound what other peers may have of this one in the networks it advertises. Zero fields are the stack's
// defaults. A client is one overlay address.
type AdvertiseLimits struct {
	MaxConnections          int // TCP, at one time
	MaxConnectionsPerClient int
	MaxFlows                int // UDP, at one time
	MaxFlowsPerClient       int
	FlowTimeout             time.Duration // for a flow without a datagram
}

var advertiseLimitsKeys = []string{
	"max_connections", "max_connections_per_client", "max_flows", "max_flows_per_client", "flow_timeout",
}

// Bounds of flow_timeout. A second is enough for a question and its answer.
const (
	minFlowTimeout = time.Second
	maxFlowTimeout = 24 * time.Hour
)

// readAdvertise reads the networks behind this peer that it opens to others.
func readAdvertise(s *section, p *Peer) []netip.Prefix {
	v, ok := s.get("advertise")
	if !ok {
		return nil
	}
	if p.Mode == ModeTUN {
		v.wrong("of no use in tun mode, where the kernel forwards: remove it, or set mode to netstack")
		return nil
	}
	var nets []netip.Prefix
	first := make(map[netip.Prefix]string)
	for _, e := range v.list("192.168.1.0/24") {
		n, ok := e.network("192.168.1.0/24")
		if !ok {
			continue
		}
		path, twice := first[n]
		own, inside := within(n, p.Addresses)
		held, holds := holdsSpecial(n)
		switch {
		case n.Bits() == 0:
			e.wrong("%s is the whole Internet: want the networks behind this peer, such as 192.168.1.0/24", n)
		case twice:
			e.wrong("%s is given already as %s", n, path)
		case inside:
			e.wrong("%s is part of %s, the overlay itself: want a network behind this peer", n, own.Masked())
		case holds:
			e.wrong("%s holds %s, which only this host can mean: want smaller networks", n, held)
		default:
			first[n] = e.path
			nets = append(nets, n)
		}
	}
	return nets
}

// within returns the one among nets that n is a part of.
func within(n netip.Prefix, nets []netip.Prefix) (netip.Prefix, bool) {
	for _, p := range nets {
		if p.Bits() <= n.Bits() && p.Contains(n.Addr()) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// holdsSpecial returns a network within n that must not be opened to others: connections into
// it would end at this host, or at its neighbours.
func holdsSpecial(n netip.Prefix) (netip.Prefix, bool) {
	for _, r := range special {
		if n.Overlaps(r.net) {
			return r.net, true
		}
	}
	return netip.Prefix{}, false
}

func readAdvertiseLimits(s *section) (l AdvertiseLimits) {
	v, ok := s.get("advertise_limits")
	if !ok {
		return l
	}
	if !s.has("advertise") {
		v.wrong("of no use without advertise: remove it, or say which networks are advertised")
		return l
	}
	sub, ok := v.section(advertiseLimitsKeys)
	if !ok {
		return l
	}
	sub.bounds(
		bound{"max_connections", "connections", &l.MaxConnections},
		bound{"max_connections_per_client", "connections", &l.MaxConnectionsPerClient},
		bound{"max_flows", "flows", &l.MaxFlows},
		bound{"max_flows_per_client", "flows", &l.MaxFlowsPerClient},
	)
	if v, ok := sub.get("flow_timeout"); ok {
		l.FlowTimeout, _ = v.duration(minFlowTimeout, maxFlowTimeout)
	}
	return l
}
