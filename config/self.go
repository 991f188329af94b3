package config

import (
	"net/netip"
	"strings"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// self is what a peer's file and a relay's file say alike: who this is and how it runs.
type self struct {
	name         string
	mode         Mode
	iface        string
	privateKey   wire.PrivateKey
	presharedKey wire.PresharedKey
	addresses    []netip.Prefix
	mtu          int
	rekeyAfter   time.Duration
	keepalive    time.Duration
	udp          UDP
	control      string
	log          Log
}

// Bounds of numbers. A session is refused at nine minutes (docs/protocol.md, "Rekeying"), so its
// successor must be there before; a handshake takes place at most every five seconds.
const (
	minMTU     = 576  // RFC 791: what every IPv4 host takes
	minMTUIPv6 = 1280 // RFC 8200, section 5
	maxMTU     = 65000

	minRekeyAfter = 10 * time.Second
	maxRekeyAfter = 8 * time.Minute
	minKeepalive  = time.Second
	maxKeepalive  = 10 * time.Minute

	maxInterface = 15 // IFNAMSIZ less the final zero
)

var (
	logKeys = []string{"level", "format"}
	udpKeys = []string{"gso", "gro"}
)

// readSelf reads the shared part of s. Keys that s does not know are simply not there.
func readSelf(s *section, keys ReadKeys) self {
	var me self
	if v, ok := s.get("name"); ok {
		me.name, _ = v.label()
	}
	me.mode = readMode(s)
	me.iface = readInterface(s)
	if v, ok := s.need("private_key_file", "the file that adit keygen --out writes"); ok {
		me.privateKey = v.privateKey(keys)
	}
	if v, ok := s.get("pre_shared_key_file"); ok {
		me.presharedKey = v.presharedKey(keys)
	}
	if v, ok := s.get("addresses"); ok {
		me.addresses = readAddresses(v)
	}
	me.mtu = readMTU(s, me.addresses)
	me.rekeyAfter = readDuration(s, "rekey_after", minRekeyAfter, maxRekeyAfter, DefaultRekeyAfter)
	me.keepalive = readDuration(s, "keepalive", minKeepalive, maxKeepalive, DefaultKeepalive)
	me.udp = readUDP(s)
	me.control = readControl(s)
	me.log = readLog(s)
	return me
}

func readMode(s *section) Mode {
	v, ok := s.get("mode")
	if !ok {
		return ModeAuto
	}
	text, ok := v.text()
	if !ok {
		return ModeAuto
	}
	m, err := ParseMode(text)
	if err != nil {
		v.wrong("%s", err)
	}
	return m
}

func readInterface(s *section) string {
	v, ok := s.get("interface")
	if !ok {
		return DefaultInterface
	}
	text, ok := v.text()
	if !ok {
		return ""
	}
	if len(text) > maxInterface {
		v.wrong("%s is too long for an interface: want at most %d characters", quote(text), maxInterface)
	} else if text == "." || text == ".." || strings.Trim(text, interfaceLetters) != "" {
		v.wrong("%s cannot be an interface: want letters, digits, and any of . _ -", quote(text))
	}
	return text
}

const interfaceLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

func readAddresses(v value) []netip.Prefix {
	var addrs []netip.Prefix
	first := make(map[netip.Addr]string)
	entries := v.list("10.9.0.2/24")
	for _, e := range entries {
		p, ok := e.ownAddress()
		if !ok {
			continue
		}
		if path, twice := first[p.Addr()]; twice {
			e.wrong("%s is given already as %s", p.Addr(), path)
			continue
		}
		first[p.Addr()] = e.path
		addrs = append(addrs, p)
	}
	if v.kind == kindList && len(v.items) == 0 {
		v.wrong("is empty: want at least one overlay address, such as [10.9.0.2/24]")
	}
	return addrs
}

// readMTU returns 0 for what the peer is to find out itself.
func readMTU(s *section, addrs []netip.Prefix) int {
	v, ok := s.get("mtu")
	if !ok {
		return 0
	}
	if v.kind == kindText && v.node.text == "auto" {
		return 0
	}
	n, ok := v.integer(minMTU, maxMTU, "bytes, or auto")
	if !ok {
		return 0
	}
	if n < minMTUIPv6 {
		for _, a := range addrs {
			if a.Addr().Is6() {
				v.wrong("%d is too small for the IPv6 address %s: want at least %d bytes", n, a.Addr(), minMTUIPv6)
				break
			}
		}
	}
	return int(n)
}

func readDuration(s *section, key string, lo, hi, unsaid time.Duration) time.Duration {
	if v, ok := s.get(key); ok {
		if d, ok := v.duration(lo, hi); ok {
			return d
		}
	}
	return unsaid
}

func readUDP(s *section) (u UDP) {
	v, ok := s.get("udp")
	if !ok {
		return u
	}
	sub, ok := v.section(udpKeys)
	if !ok {
		return u
	}
	off := func(key string) bool {
		v, ok := sub.get(key)
		if !ok {
			return false
		}
		on, ok := v.boolean()
		return ok && !on
	}
	return UDP{NoGSO: off("gso"), NoGRO: off("gro")}
}

// readControl returns the path of the control socket, "off" for none, or nothing.
func readControl(s *section) string {
	v, ok := s.get("control")
	if !ok {
		return ""
	}
	if v.kind == kindBool {
		v.wrong("want the path of a socket, or off; got %s", v.node)
		return ""
	}
	path, ok := v.text()
	if !ok || path == ControlOff {
		return path
	}
	return v.report.resolve(path)
}

func readLog(s *section) (l Log) {
	v, ok := s.get("log")
	if !ok {
		return l
	}
	sub, ok := v.section(logKeys)
	if !ok {
		return l
	}
	if v, ok := sub.get("level"); ok {
		if text, ok := v.text(); ok {
			level, err := ParseLogLevel(text)
			if err != nil {
				v.wrong("%s", err)
			}
			l.Level = level
		}
	}
	if v, ok := sub.get("format"); ok {
		if text, ok := v.text(); ok {
			if err := CheckLogFormat(text); err != nil {
				v.wrong("%s", err)
			}
			l.Format = text
		}
	}
	return l
}

func (v value) privateKey(keys ReadKeys) wire.PrivateKey {
	path, ok := v.text()
	if !ok {
		return wire.PrivateKey{}
	}
	k, err := loadPrivateKey(v.report.resolve(path), keys)
	if err != nil {
		v.wrong("%s", oneLine(err.Error()))
	}
	return k
}

func (v value) presharedKey(keys ReadKeys) wire.PresharedKey {
	path, ok := v.text()
	if !ok {
		return wire.PresharedKey{}
	}
	k, err := loadPresharedKey(v.report.resolve(path), keys)
	if err != nil {
		v.wrong("%s", oneLine(err.Error()))
	}
	return k
}
