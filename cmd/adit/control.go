package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/control"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/wire"
)

// An endpoint is what a control socket speaks for: a peer or a relay.
type endpoint interface {
	Status() peer.Status
	Ping(ctx context.Context, host string) (peer.Echo, error)
}

// controlFlag adds --control to a command that makes a socket, or looks for one.
func controlFlag(cmd *cobra.Command, path *string, usage string) {
	cmd.Flags().StringVar(path, "control", "", usage)
	cmd.MarkFlagFilename("control", "sock")
}

// socketName is what the socket of a configuration is called by custom.
func socketName(kind, name string, key wire.PublicKey) string {
	return cmp.Or(name, kind+"-"+hex.EncodeToString(key[:4]))
}

// socketOf is where the socket of a configuration is; empty: nowhere. said is what it says itself.
func socketOf(said, kind, name string, key wire.PublicKey) string {
	switch said {
	case config.ControlOff:
		return ""
	case "":
		return control.Path(socketName(kind, name, key))
	}
	return said
}

// openControl serves the control socket at path, if there is to be one, for e and the proxy in front of it, if any. A peer without it is a peer
// all the same: what is wrong is a warning.
func openControl(path string, e endpoint, front *front, log *slog.Logger) *control.Server {
	if path == "" {
		return nil
	}
	api := control.API{
		Status: func(own control.Stats) any { return describe(e, front, &own) },
		Ping:   func(ctx context.Context, host string) (any, error) { return e.Ping(ctx, host) },
	}
	s, err := control.Serve(path, api, log)
	if err != nil {
		log.Warn("no control socket, so adit status and adit ping do not work here; --control PATH puts it elsewhere, --control off silences this", "error", err)
		return nil
	}
	log.Info("control", "socket", path)
	return s
}

// target says which running adit is asked.
type target struct {
	config, socket string
}

func targetFlags(cmd *cobra.Command) *target {
	t := new(target)
	configFlag(cmd, &t.config)
	controlFlag(cmd, &t.socket, "the control `SOCKET` of the one that is asked")
	return t
}

// client returns a client of the running adit that is meant: the one at the socket named, the one of the configuration
// named, or else the only one.
func (t *target) client() (*control.Client, error) {
	path, err := t.find()
	if err != nil {
		return nil, err
	}
	return control.NewClient(path), nil
}

func (t *target) find() (string, error) {
	switch {
	case t.socket != "" && t.config != "":
		return "", usagef("-c FILE and --control SOCKET both say which adit is asked: give one of them")
	case t.socket != "":
		return t.socket, nil
	case t.config != "":
		return t.configured()
	}
	folder := control.Folder()
	running, err := control.Running(folder)
	switch {
	case err != nil:
		return "", fmt.Errorf("looking for control sockets: %w", err)
	case len(running) == 0:
		return "", fmt.Errorf("no adit of this user is running: there is no control socket that answers in %s; one elsewhere is told by --control SOCKET", folder)
	case len(running) > 1:
		var names []string
		for _, path := range running {
			names = append(names, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
		}
		return "", usagef("several are running in %s (%s): say which by -c FILE or --control SOCKET", folder, strings.Join(names, ", "))
	}
	return running[0], nil
}

// configured is the socket of a configuration.
func (t *target) configured() (string, error) {
	file, err := config.Load(t.config)
	if err != nil {
		return "", err
	}
	path := ""
	if r := file.Relay; r != nil {
		path = socketOf(r.Control, relayKind, r.Name, r.PrivateKey.Public())
	} else {
		p := file.Peer
		path = socketOf(p.Control, peerKind, p.Name, p.PrivateKey.Public())
	}
	if path == "" {
		return "", usagef("%s says control: off, so there is nothing to ask", t.config)
	}
	return path, nil
}

// The kinds of process there are.
const (
	peerKind  = "peer"
	relayKind = "relay"
)

// unreached puts into words that there was nobody to ask.
func unreached(err error) error {
	var asked *url.Error
	if !errors.As(err, &asked) {
		return err
	}
	switch err := asked.Err; {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("it is not running: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("its control socket is for its own user and root: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("it does not answer: %w", err)
	default:
		return fmt.Errorf("it cannot be asked: %w", err)
	}
}
