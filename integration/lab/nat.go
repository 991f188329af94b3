//go:build linux

package lab

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NAT is a router that hides what is inside behind its outside address, as at home or in an
// office. From outside it lets in only what belongs to traffic begun inside, and drops the rest in silence.
//
// By default it keeps the source port where that port is free: what two insiders behind two such NATs need to
// meet by sending to each other at once. Linux remembers each flow by both of its ends, so a
// mapping serves one far end only and another far end sees the same port only because it was kept (a
// port-restricted cone, to its users).
//
// How long idle flows are remembered is a kernel parameter of the host:
//
//	nat.Sysctl("net/netfilter/nf_conntrack_udp_timeout", "2")        // seconds, until there is a reply
//	nat.Sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "2") // after there was one
type NAT struct {
	*Host
	outside string // interface
}

type natSpec struct {
	symmetric  bool
	routedIPv6 bool
}

// Symmetric makes a NAT give every flow a port of its own, at random: an address learnt from one
// far end is of no use to another.
func Symmetric() Option {
	return optionFunc(func(s *spec) error {
		s.nat.symmetric = true
		return nil
	})
}

// RoutedIPv6 makes a NAT leave IPv6 addresses alone: a router with a firewall that keeps state. Hosts
// outside need a [Route] to the inside prefix. Without it IPv6 is translated as IPv4 is.
func RoutedIPv6() Option {
	return optionFunc(func(s *spec) error {
		s.nat.routedIPv6 = true
		return nil
	})
}

// NAT makes a NAT between outside and inside. More insides are added by [On] among the options; a
// [Gateway] puts it behind another NAT. It ends the test, as [New] does without root, if the
// kernel cannot do it.
func (n *Network) NAT(name string, outside, inside Link, opts ...Option) *NAT {
	n.t.Helper()
	h, s := n.host(name, true, append([]Option{outside, inside}, opts...))
	r := &NAT{Host: h, outside: h.ifaces[0].name}
	n.missing(r.install(s.nat), "NAT by nftables", "nf_tables, nft_ct, nft_masq, nf_nat, nf_conntrack")
	return r
}

// install writes the rules:
//
//	postrouting: out of the outside: masquerade
//	forward, input: from the outside: established, related, untracked: accept; all else: drop
//
// Dropping, rather than refusing, what comes in unasked matters: a refused packet would be a flow
// known to the kernel, and would occupy the very port a later packet from inside wants to keep.
// Untracked is neighbour discovery.
func (r *NAT) install(s natSpec) error {
	return r.nft(func(c *nftables.Conn) {
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "lab-nat"})
		masquerade := interfaceIs(expr.MetaKeyOIFNAME, r.outside)
		if s.routedIPv6 {
			masquerade = append(familyIs(unix.NFPROTO_IPV4), masquerade...)
		}
		masquerade = append(masquerade, &expr.Masq{FullyRandom: s.symmetric})
		c.AddRule(&nftables.Rule{Table: table, Exprs: masquerade, Chain: c.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})})
		for _, hook := range []struct {
			name string
			num  *nftables.ChainHook
		}{{"forward", nftables.ChainHookForward}, {"input", nftables.ChainHookInput}} {
			chain := c.AddChain(&nftables.Chain{
				Name: hook.name, Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: hook.num, Priority: nftables.ChainPriorityFilter,
			})
			known := uint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED | expr.CtStateBitUNTRACKED)
			stranger := append(interfaceIs(expr.MetaKeyIIFNAME, r.outside),
				&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
					Mask: binaryutil.NativeEndian.PutUint32(known), Xor: make([]byte, 4)},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
				&expr.Verdict{Kind: expr.VerdictDrop})
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: stranger})
		}
	})
}

// FlushNAT forgets all mappings and flows: what is outside can no longer reach inside until
// inside sends again. A [Symmetric] NAT will then choose another port, others usually the same.
func (r *NAT) FlushNAT() {
	r.n.t.Helper()
	// The netlink message asks for no family, which is all of them.
	err := r.ns.ConntrackTableFlush(netlink.ConntrackTable)
	r.n.missing(err, "flushing of flows by netlink", "nf_conntrack_netlink")
}

// nft sends one transaction of nftables changes to the host's kernel.
func (h *Host) nft(change func(*nftables.Conn)) error {
	var err error
	e := h.ns.do(func() {
		var c *nftables.Conn
		if c, err = nftables.New(); err != nil {
			return
		}
		change(c)
		err = c.Flush()
	})
	if e != nil {
		return e
	}
	return err
}

func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

func familyIs(nfproto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{nfproto}},
	}
}
