// Package config reads the YAML file of a peer or of a relay: strictly, with the line of
// whatever is wrong. It opens no socket and no device; beside the file itself it reads only the
// key files that the file names.
//
// docs/configuration.md describes every key.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// What a file that does not say otherwise gets.
const (
	DefaultInterface   = "adit0"
	DefaultListen      = ":0" // any free port, on every address
	DefaultMTU         = 1400 // where the peer cannot find out what the underlay carries
	DefaultRekeyAfter  = 5 * time.Minute
	DefaultKeepalive   = 25 * time.Second
	DefaultSocksListen = "127.0.0.1:1080"
	DefaultCircuits    = 1024
)

// maxFile bounds what is read of a configuration. A relay's file of 20,000 members is about 3 MB.
const maxFile = 4 << 20

// Mode says which device ends the overlay.
type Mode string

const (
	ModeAuto     Mode = "auto" // a TUN device where the process may have one, else the stack
	ModeTUN      Mode = "tun"
	ModeNetstack Mode = "netstack"
)

// ParseMode reads a mode as the file and the command line write it.
func ParseMode(s string) (Mode, error) {
	m := Mode(s)
	if !slices.Contains([]Mode{ModeAuto, ModeTUN, ModeNetstack}, m) {
		return "", fmt.Errorf("unknown mode %s: want auto, tun or netstack", quote(s))
	}
	return m, nil
}

// Peer is what a peer's file says, defaults filled in. A Peer made by hand may leave fields
// zero: each zero means the default.
type Peer struct {
	Name            string
	Mode            Mode
	Interface       string // name of the TUN device
	PrivateKey      wire.PrivateKey
	PresharedKey    wire.PresharedKey // of the sessions with peers that name no other; zero: none
	Addresses       []netip.Prefix    // own overlay addresses, host bits set, at least one
	Listen          string            // UDP: host:port, host empty or a literal address
	MTU             int               // of the overlay; 0: what the underlay carries, see peer.AutoMTU
	Advertise       []netip.Prefix    // networks opened to other peers, masked; not in ModeTUN
	AdvertiseLimits AdvertiseLimits
	Socks           *Socks // nil: none
	Relays          []RelayEndpoint
	Peers           []Remote
	RekeyAfter      time.Duration
	Keepalive       time.Duration
	UDP             UDP
	Control         string // path of the control socket; empty: where it is by custom; ControlOff: none
	Log             Log
}

// RelayEndpoint is where a relay is and who it is.
type RelayEndpoint struct {
	PublicKey    wire.PublicKey
	PresharedKey wire.PresharedKey // of the session with the relay; zero: none
	Endpoint     string            // host:port, host a name or a literal address
}

// Remote is another peer known in advance.
type Remote struct {
	Name         string // may be empty
	PublicKey    wire.PublicKey
	PresharedKey wire.PresharedKey // zero: that of the Peer
	Endpoint     string            // host:port; empty: not reachable directly from here
	AllowedIPs   []netip.Prefix    // masked, at least one
}

// Relay is what a relay's file says, defaults filled in.
type Relay struct {
	Name         string
	PrivateKey   wire.PrivateKey
	PresharedKey wire.PresharedKey // of the sessions with members; zero: none
	Listen       string            // UDP: host:port
	Members      []Member          // at least one
	Limits       Limits
	RekeyAfter   time.Duration
	Keepalive    time.Duration
	UDP          UDP
	Control      string // as a Peer's
	Log          Log

	// Addresses makes the relay a peer too. The three fields below are of use only then.
	Addresses []netip.Prefix
	Mode      Mode
	Interface string
	MTU       int
}

// Member is a peer that may use a relay.
type Member struct {
	Name       string // NAME.adit is its overlay address
	PublicKey  wire.PublicKey
	AllowedIPs []netip.Prefix // masked, at least one
}

// Limits bounds what one member may have of a relay. Zero values: DefaultCircuits, and no
// limit on bytes.
type Limits struct {
	CircuitsPerMember       int
	BytesPerSecondPerMember int64
}

// ControlOff in place of a path: there is to be no control socket.
const ControlOff = "off"

// UDP switches segmentation offloads of the UDP socket off, for kernels and network cards
// where they do harm.
type UDP struct {
	NoGSO bool
	NoGRO bool
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // "text", or "" for the same, or "json"
}

// File is a configuration of either kind: exactly one field is set.
type File struct {
	Peer  *Peer
	Relay *Relay
}

// Load reads the file at path, of whichever kind it is: a file with members is a relay's.
//
// The error of this and of all other functions that read a configuration is an [Errors].
func Load(path string) (File, error) {
	return load(path, eitherFile)
}

// LoadPeer reads a peer's file.
func LoadPeer(path string) (*Peer, error) {
	f, err := load(path, peerFile)
	return f.Peer, err
}

// LoadRelay reads a relay's file.
func LoadRelay(path string) (*Relay, error) {
	f, err := load(path, relayFile)
	return f.Relay, err
}

// ReadKeys returns the content of the key file at path. A nil ReadKeys is [ReadKeyFile].
type ReadKeys func(path string) ([]byte, error)

// Parse is [Load] for a file already read. The path stands in errors, and paths of key files
// are relative to its folder.
func Parse(path string, data []byte, keys ReadKeys) (File, error) {
	return parse(&report{file: path}, data, keys, eitherFile)
}

// ParsePeer is [LoadPeer] for a file already read; see [Parse].
func ParsePeer(path string, data []byte, keys ReadKeys) (*Peer, error) {
	f, err := parse(&report{file: path}, data, keys, peerFile)
	return f.Peer, err
}

// ParseRelay is [LoadRelay] for a file already read; see [Parse].
func ParseRelay(path string, data []byte, keys ReadKeys) (*Relay, error) {
	f, err := parse(&report{file: path}, data, keys, relayFile)
	return f.Relay, err
}

// want says which kind of file the caller can use.
type want uint8

const (
	eitherFile want = iota
	peerFile
	relayFile
)

func parse(r *report, data []byte, keys ReadKeys, want want) (File, error) {
	if keys == nil {
		keys = ReadKeyFile
	}
	var f File
	if root, ok := r.open(data); ok {
		members := root.has("members")
		switch {
		case members && want == peerFile:
			r.add(root.lineOf("members"), "members", "this is a relay's file (it has members): use adit relay")
		case !members && want == relayFile && (root.has("relays") || root.has("peers")):
			r.add(root.line, "", "this is a peer's file (it has no members): use adit up")
		case members || want == relayFile:
			f.Relay = readRelay(root, keys)
		default:
			f.Peer = readPeer(root, keys)
		}
	}
	if err := r.err(); err != nil {
		return File{}, err
	}
	return f, nil
}

// open parses data, and reports what keeps it from being a configuration at all.
func (r *report) open(data []byte) (*section, bool) {
	root, err := parseDocument(data)
	if err != nil {
		r.add(err.line, "", "%s", err.msg)
		return nil, false
	}
	if root.kind != kindMapping {
		r.add(root.line, "", "want keys and values, such as name: laptop; got %s", root)
		return nil, false
	}
	return value{report: r, node: root}.open(), true
}

// load reads the file at path, and looks who else may.
func load(path string, want want) (File, error) {
	r := &report{file: path}
	data, err := r.read()
	if err != nil {
		return File{}, Errors{&Error{File: path, Msg: "cannot be read: " + reason(err)}}
	}
	return parse(r, data, nil, want)
}

// read refuses a file longer than maxFile, whatever its size is said to be.
func (r *report) read() ([]byte, error) {
	f, err := os.Open(r.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r.loose = checkSecret(r.file, info)
	return readOpen(f, maxFile)
}

func readOpen(f *os.File, max int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, fmt.Errorf("larger than %d bytes", max)
	}
	return data, nil
}

// reason drops the operation and the path from an error of package os: both are told already.
func reason(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "there is no such file" // on every system alike
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return oneLine(err.Error())
}
