package config

var (
	relayKeys = []string{
		"private_key_file", "listen", "members", "name", "pre_shared_key_file", "limits",
		"addresses", "mode", "interface", "mtu", "rekey_after", "keepalive", "udp", "control", "log",
	}
	memberKeys = []string{"name", "public_key", "allowed_ips"}
	limitsKeys = []string{"circuits_per_member", "bytes_per_second_per_member"}
)

// Bounds of limits. Less than a full-size message a second would let nothing through.
const (
	maxCircuits       = 1 << 20
	minBytesPerSecond = 64 << 10
	maxBytesPerSecond = 1 << 40
)

func readRelay(s *section, keys ReadKeys) *Relay {
	s.foreign(relayKeys, peerKeys, "of no use in a relay's file (it has members): remove it, or run a peer beside the relay")
	s.know(relayKeys)
	me := readSelf(s, keys)
	r := &Relay{
		Name:         me.name,
		PrivateKey:   me.privateKey,
		PresharedKey: me.presharedKey,
		Addresses:    me.addresses,
		Mode:         me.mode,
		Interface:    me.iface,
		MTU:          me.mtu,
		RekeyAfter:   me.rekeyAfter,
		Keepalive:    me.keepalive,
		UDP:          me.udp,
		Control:      me.control,
		Log:          me.log,
	}
	if v, ok := s.need("listen", "where peers reach this relay, such as \":5040\""); ok {
		r.Listen, _ = v.listen()
	}
	r.Members = readMembers(s, me)
	r.Limits = readLimits(s)
	return r
}

func readMembers(s *section, me self) []Member {
	v, ok := s.need("members", "the peers that may use this relay")
	if !ok {
		return nil
	}
	var members []Member
	taken := newTaken(me)
	for _, e := range v.list("{name: laptop, public_key: …, allowed_ips: [10.9.0.2/32]}") {
		sub, ok := e.section(memberKeys)
		if !ok {
			continue
		}
		var m Member
		if v, ok := sub.need("name", "NAME.adit will be its overlay address"); ok {
			m.Name = taken.name(v)
		}
		m.PublicKey = taken.publicKey(sub, "what adit pubkey prints for the member's key")
		m.AllowedIPs = taken.allowedIPs(sub)
		members = append(members, m)
	}
	if v.kind == kindList && len(v.items) == 0 {
		v.wrong("is empty: only members may use a relay, so want at least one")
	}
	return members
}

func readLimits(s *section) Limits {
	l := Limits{CircuitsPerMember: DefaultCircuits}
	v, ok := s.get("limits")
	if !ok {
		return l
	}
	sub, ok := v.section(limitsKeys)
	if !ok {
		return l
	}
	if v, ok := sub.get("circuits_per_member"); ok {
		if n, ok := v.integer(1, maxCircuits, "circuits"); ok {
			l.CircuitsPerMember = int(n)
		}
	}
	if v, ok := sub.get("bytes_per_second_per_member"); ok {
		l.BytesPerSecondPerMember, _ = v.integer(minBytesPerSecond, maxBytesPerSecond, "bytes")
	}
	return l
}
