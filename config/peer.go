package config

import (
	"net/netip"

	"github.com/adit-overlay/adit/wire"
)

var (
	peerKeys = []string{
		"name", "mode", "interface", "private_key_file", "addresses", "listen", "pre_shared_key_file",
		"mtu", "advertise", "advertise_limits", "socks", "relays", "peers", "rekey_after", "keepalive", "udp", "control", "log",
	}
	relayEndpointKeys = []string{"public_key", "endpoint", "pre_shared_key_file"}
	remoteKeys        = []string{"name", "public_key", "endpoint", "allowed_ips", "pre_shared_key_file"}
)

func readPeer(s *section, keys ReadKeys) *Peer {
	s.foreign(peerKeys, relayKeys, "of no use in a peer's file (it has no members): remove it")
	s.know(peerKeys)
	me := readSelf(s, keys)
	s.need("addresses", "the overlay addresses of this peer, such as [10.9.0.2/24]")
	p := &Peer{
		Name:         me.name,
		Mode:         me.mode,
		Interface:    me.iface,
		PrivateKey:   me.privateKey,
		PresharedKey: me.presharedKey,
		Addresses:    me.addresses,
		Listen:       DefaultListen,
		MTU:          me.mtu,
		RekeyAfter:   me.rekeyAfter,
		Keepalive:    me.keepalive,
		UDP:          me.udp,
		Control:      me.control,
		Log:          me.log,
	}
	if v, ok := s.get("listen"); ok {
		p.Listen, _ = v.listen()
	}
	p.Advertise = readAdvertise(s, p)
	p.AdvertiseLimits = readAdvertiseLimits(s)
	p.Socks = readSocks(s)
	p.Relays = readRelayEndpoints(s, me, keys)
	p.Peers = readRemotes(s, me, keys)
	if !s.has("listen") && !s.has("relays") && !s.has("peers") {
		s.report.add(s.line, "", "nothing to reach and nowhere to be reached: want relays, peers or listen")
	}
	return p
}

func readRelayEndpoints(s *section, me self, keys ReadKeys) []RelayEndpoint {
	v, ok := s.get("relays")
	if !ok {
		return nil
	}
	var relays []RelayEndpoint
	taken := newTaken(me)
	for _, e := range v.list("{public_key: …, endpoint: \"relay.example.com:5040\"}") {
		sub, ok := e.section(relayEndpointKeys)
		if !ok {
			continue
		}
		var r RelayEndpoint
		r.PublicKey = taken.publicKey(sub, "what adit pubkey prints for the relay's key")
		if v, ok := sub.need("endpoint", "where the relay listens, such as relay.example.com:5040"); ok {
			r.Endpoint, _ = v.endpoint()
		}
		if v, ok := sub.get("pre_shared_key_file"); ok {
			r.PresharedKey = v.presharedKey(keys)
		}
		relays = append(relays, r)
	}
	return relays
}

func readRemotes(s *section, me self, keys ReadKeys) []Remote {
	v, ok := s.get("peers")
	if !ok {
		return nil
	}
	var remotes []Remote
	taken := newTaken(me)
	for _, e := range v.list("{public_key: …, allowed_ips: [10.9.0.3/32]}") {
		sub, ok := e.section(remoteKeys)
		if !ok {
			continue
		}
		var r Remote
		if v, ok := sub.get("name"); ok {
			r.Name = taken.name(v)
		}
		r.PublicKey = taken.publicKey(sub, "what adit pubkey prints for that peer's key")
		if v, ok := sub.get("endpoint"); ok {
			r.Endpoint, _ = v.endpoint()
		}
		if v, ok := sub.get("pre_shared_key_file"); ok {
			r.PresharedKey = v.presharedKey(keys)
		}
		r.AllowedIPs = taken.allowedIPs(sub)
		remotes = append(remotes, r)
	}
	return remotes
}

// taken remembers which names, keys and networks the entries of a list have claimed: each can
// belong to one of them.
type taken struct {
	self  self
	names map[string]string // to the path of its owner
	keys  map[wire.PublicKey]string
	nets  map[netip.Prefix]string
}

func newTaken(me self) *taken {
	t := &taken{
		self:  me,
		names: make(map[string]string),
		keys:  make(map[wire.PublicKey]string),
		nets:  make(map[netip.Prefix]string),
	}
	if me.name != "" {
		t.names[me.name] = "name"
	}
	if !me.privateKey.IsZero() {
		t.keys[me.privateKey.Public()] = "private_key_file"
	}
	for _, a := range me.addresses {
		t.nets[netip.PrefixFrom(a.Addr(), a.Addr().BitLen())] = "addresses"
	}
	return t
}

func (t *taken) name(v value) string {
	name, ok := v.label()
	if !ok {
		return ""
	}
	switch owner, twice := t.names[name]; {
	case owner == "name":
		v.wrong("%s is this host's own name: want another", name)
	case twice:
		v.wrong("%s is taken by %s: want a name of its own", name, owner)
	default:
		t.names[name] = v.path
	}
	return name
}

func (t *taken) publicKey(s *section, purpose string) wire.PublicKey {
	v, ok := s.need("public_key", purpose)
	if !ok {
		return wire.PublicKey{}
	}
	k, ok := v.publicKey()
	if !ok {
		return k
	}
	switch owner, twice := t.keys[k]; {
	case owner == "private_key_file":
		v.wrong("this is the host's own key (of private_key_file): want the other side's")
	case twice:
		v.wrong("the same key as %s: want the key of another", owner)
	default:
		t.keys[k] = v.path
	}
	return k
}

func (t *taken) allowedIPs(s *section) []netip.Prefix {
	v, ok := s.need("allowed_ips", "the overlay addresses it may use, such as [10.9.0.3/32]")
	if !ok {
		return nil
	}
	var nets []netip.Prefix
	for _, e := range v.list("10.9.0.3/32") {
		n, ok := e.network("10.9.0.3/32")
		if !ok {
			continue
		}
		switch owner, twice := t.nets[n]; {
		case owner == "addresses":
			e.wrong("%s is this host's own address: want the other side's", n)
		case twice:
			e.wrong("%s belongs to %s already: a network has one owner", n, owner)
		default:
			t.nets[n] = e.path
			nets = append(nets, n)
		}
	}
	if v.kind == kindList && len(v.items) == 0 {
		v.wrong("is empty: want at least one network, such as [10.9.0.3/32]")
	}
	return nets
}
