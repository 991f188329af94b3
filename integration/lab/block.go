//go:build linux

package lab

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Protocol is what a [Traffic] is limited to.
type Protocol uint8

const (
	AnyProtocol Protocol = iota
	UDP
	TCP
	ICMP // of IPv4 and IPv6, errors such as "packet too big" included
)

// Traffic describes packets to drop. The zero value is all traffic, save the neighbour
// discovery that IPv6 cannot do without.
type Traffic struct {
	Protocol  Protocol
	From, To  string // an address or a prefix; empty: any
	Port      uint16 // destination port, for UDP and TCP; 0: any
	Fragments bool   // only fragments of IPv4 packets; not on a NAT, which puts them together first
	OneWay    bool   // packets from From to To only; otherwise also from To to From
}

// blocker is what a host drops.
type blocker struct {
	table  *nftables.Table
	chains []*nftables.Chain
}

// Block drops packets at the host, in silence: those it receives, sends, or forwards. On a NAT the addresses
// may be those before or those after translation. It adds to what earlier calls blocked.
// Flows in progress are dropped too.
func (h *Host) Block(what Traffic) {
	h.n.t.Helper()
	rules, err := what.rules()
	h.n.wrap(err, "host %s: Block", h.name)
	if h.block.table == nil {
		h.n.missing(h.makeBlocker(), "packet filter by nftables", "nf_tables")
	}
	h.n.wrap(h.nft(func(c *nftables.Conn) {
		for _, chain := range h.block.chains {
			for _, exprs := range rules {
				c.AddRule(&nftables.Rule{Table: h.block.table, Chain: chain, Exprs: exprs})
			}
		}
	}), "host %s: Block", h.name)
}

// Unblock lets through again all that Block dropped.
func (h *Host) Unblock() {
	h.n.t.Helper()
	if h.block.table == nil {
		return
	}
	h.n.wrap(h.nft(func(c *nftables.Conn) { c.DelTable(h.block.table) }), "host %s: Unblock", h.name)
	h.block = blocker{}
}

// makeBlocker makes two chains that between them see every packet, before and after address
// translation, each beginning with a rule that spares neighbour discovery.
func (h *Host) makeBlocker() error {
	var b blocker
	err := h.nft(func(c *nftables.Conn) {
		b.table = c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "lab-block"})
		for _, hook := range []struct {
			name     string
			num      *nftables.ChainHook
			priority nftables.ChainPriority
		}{
			{"first", nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw},
			{"last", nftables.ChainHookPostrouting, *nftables.ChainPriorityConntrackHelper},
		} {
			chain := c.AddChain(&nftables.Chain{
				Name: hook.name, Table: b.table, Type: nftables.ChainTypeFilter,
				Hooknum: hook.num, Priority: nftables.ChainPriorityRef(hook.priority),
			})
			b.chains = append(b.chains, chain)
			c.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: append(
				protocolIs(unix.IPPROTO_ICMPV6),
				// RFC 4861 section 4: types 133 to 137.
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
				&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{133}},
				&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{137}},
				&expr.Verdict{Kind: expr.VerdictAccept},
			)})
		}
	})
	if err == nil {
		h.block = b
	}
	return err
}

// rules returns the expressions of the rules that drop t.
func (t Traffic) rules() ([][]expr.Any, error) {
	from, err := parseSide(t.From)
	if err != nil {
		return nil, err
	}
	to, err := parseSide(t.To)
	if err != nil {
		return nil, err
	}
	if from.IsValid() && to.IsValid() && from.Addr().Is4() != to.Addr().Is4() {
		return nil, fmt.Errorf("%s and %s are of two families", t.From, t.To)
	}
	var protocols []byte
	switch t.Protocol {
	case AnyProtocol:
		protocols = []byte{0}
	case UDP:
		protocols = []byte{unix.IPPROTO_UDP}
	case TCP:
		protocols = []byte{unix.IPPROTO_TCP}
	case ICMP:
		protocols = []byte{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}
	default:
		return nil, fmt.Errorf("no protocol %d", t.Protocol)
	}
	if t.Fragments && (from.IsValid() && from.Addr().Is6() || to.IsValid() && to.Addr().Is6()) {
		return nil, fmt.Errorf("fragments of IPv6 from %s to %s", t.From, t.To)
	}
	if t.Port != 0 && t.Protocol != UDP && t.Protocol != TCP {
		return nil, fmt.Errorf("port %d without UDP or TCP", t.Port)
	}
	var rules [][]expr.Any
	for _, p := range protocols {
		rules = append(rules, t.rule(p, from, to, 2))
		if !t.OneWay {
			rules = append(rules, t.rule(p, to, from, 0))
		}
	}
	return rules, nil
}

// rule drops packets of one protocol (0: any) from src to dst whose port, at the given offset of the
// transport header, is t.Port.
func (t Traffic) rule(protocol byte, src, dst netip.Prefix, portAt uint32) []expr.Any {
	var exprs []expr.Any
	if protocol != 0 {
		exprs = append(exprs, protocolIs(protocol)...)
	}
	if t.Fragments {
		exprs = append(exprs, familyIs(unix.NFPROTO_IPV4)...)
		exprs = append(exprs, // the bit for more fragments, or an offset
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x3f, 0xff}, Xor: []byte{0, 0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}})
	}
	exprs = append(exprs, addressIn(src, 12, 8)...)
	exprs = append(exprs, addressIn(dst, 16, 24)...)
	if t.Port != 0 {
		exprs = append(exprs,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: portAt, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(t.Port)})
	}
	return append(exprs, &expr.Verdict{Kind: expr.VerdictDrop})
}

// addressIn compares an address of the IP header, found at offset4 or offset6 by family.
func addressIn(p netip.Prefix, offset4, offset6 uint32) []expr.Any {
	if !p.IsValid() {
		return nil
	}
	family, offset := byte(unix.NFPROTO_IPV4), offset4
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, offset6
	}
	network := ipNet(p.Masked())
	size := uint32(len(network.IP))
	return append(familyIs(family),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: network.Mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: network.IP})
}

func protocolIs(p byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p}},
	}
}

// parseSide reads an address or a prefix; of the empty string it makes the invalid prefix.
func parseSide(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is neither an address nor a prefix", s)
	}
	return p, nil
}
