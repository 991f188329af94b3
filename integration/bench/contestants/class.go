//go:build linux

package contestants

// A Class is contestants that do the same thing, and so may be compared.
type Class struct {
	ID, Title   string
	Contestants []Contestant
}

// IDs of classes.
const (
	TUN        = "tun"
	Stack      = "stack"
	StackOne   = "stack-one"
	Mixed      = "mixed"
	Socks      = "socks"
	SocksOne   = "socks-one"
	RelayTUN   = "relay-tun"
	RelayStack = "relay-stack"
	RelaySocks = "relay-socks"
	RelayAlone = "relay-alone"
	Offloads   = "offloads"
	Far        = "far"
)

// Classes returns all there is to compare.
func Classes() []Class {
	return []Class{
		{TUN, "TUN ↔ TUN", []Contestant{adit(tunEnd, tunEnd), wireguard(tunEnd, tunEnd), nebula, floor}},
		{Stack, "netstack ↔ netstack, load in the same process", []Contestant{adit(stackEnd, stackEnd), wireguard(stackEnd, stackEnd)}},
		{StackOne, "netstack ↔ netstack, GOMAXPROCS=1 in both processes", []Contestant{
			adit(stackEnd, stackEnd).onOneProcessor(), wireguard(stackEnd, stackEnd).onOneProcessor(),
		}},
		{Mixed, "TUN ↔ netstack", []Contestant{adit(tunEnd, stackEnd), wireguard(tunEnd, stackEnd)}},
		{Socks, "SOCKS5 → netstack ↔ netstack", []Contestant{adit(socksEnd, stackEnd), wireguard(socksEnd, stackEnd)}},
		{SocksOne, "SOCKS5 → netstack ↔ netstack, GOMAXPROCS=1 in both processes", []Contestant{
			adit(socksEnd, stackEnd).onOneProcessor(), wireguard(socksEnd, stackEnd).onOneProcessor(),
		}},
		{RelayTUN, "TUN ↔ relay ↔ TUN", []Contestant{aditRelayed(tunEnd, tunEnd), nebulaRelayed}},
		{RelayStack, "netstack ↔ relay ↔ netstack", []Contestant{aditRelayed(stackEnd, stackEnd)}},
		{RelaySocks, "SOCKS5 → netstack ↔ relay ↔ netstack", []Contestant{aditRelayed(socksEnd, stackEnd)}},
		{RelayAlone, "the relay alone, on one core", []Contestant{aditRelayAlone}},
		{Offloads, "TUN ↔ TUN, without the kernel's help to UDP at both ends", []Contestant{
			adit(tunEnd, tunEnd), aditWithout("no UDP_GRO", "gro: false"), aditWithout("no UDP_SEGMENT", "gso: false"),
			aditWithout("neither", "gso: false, gro: false"), wireguard(tunEnd, tunEnd),
		}},
		{Far, "netstack ↔ netstack, one TCP stream over a far and lossy line", []Contestant{aditWired(), wireguardWired, wireKernel}},
	}
}
