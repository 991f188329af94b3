package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/control"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/socks"
)

func statusCommand(e *env) *cobra.Command {
	var asJSON bool
	var who *target
	cmd := &cobra.Command{
		Use:   "status [-c FILE]",
		Short: "Say how a running peer or relay is doing",
		Long: `Ask a running adit, by its control socket, how it is doing: its mode and addresses,
whom it reaches and by which path, and what it has dropped and why.

Without flags the only one is asked that this user runs. Where several run, -c FILE
or --control SOCKET says which. Only the user of the process and root may ask.`,
		Example: `  adit status
  adit status --json | jq '.remotes[] | select(.connected) | {name, via, round_trip_ns}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := who.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			if asJSON {
				return printJSON(ctx, e.stdout, c)
			}
			var st status
			if err := c.Status(ctx, &st); err != nil {
				return unreached(err)
			}
			return st.print(e.stdout, time.Now())
		},
	}
	who = targetFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON, whose names stay as they are (docs/status.md)")
	return cmd
}

const statusTimeout = 15 * time.Second

// A status is what a control socket tells. Its names in JSON are a contract.
type status struct {
	Version string `json:"version"`
	Kind    string `json:"kind"`
	peer.Status
	Socks   *socksStatus   `json:"socks,omitempty"`
	Control *control.Stats `json:"control"`
}

type socksStatus struct {
	Address string `json:"address"`
	socks.Stats
}

// describe says how e is doing, and the proxy in front of it.
func describe(e endpoint, front *front, own *control.Stats) *status {
	st := &status{Version: thisBuild().module, Kind: peerKind, Status: e.Status(), Control: own}
	if st.Relay != nil {
		st.Kind = relayKind
	}
	if front != nil && front.server != nil {
		st.Socks = &socksStatus{front.addr, front.server.Stats()}
	}
	return st
}

// printJSON prints what the process says, though it may be another version of adit than this, indented.
func printJSON(ctx context.Context, w io.Writer, c *control.Client) error {
	var st json.RawMessage
	if err := c.Status(ctx, &st); err != nil {
		return unreached(err)
	}
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("the status: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}
