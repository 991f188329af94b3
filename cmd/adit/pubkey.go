package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/wire"
)

func pubkeyCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "pubkey FILE",
		Short: "Print the public key of a private key",
		Long: `Print, in base64, the public key that belongs to the private key in FILE: PEM
as adit keygen writes it, or the key in base64 or hex. The FILE - is stdin.`,
		Example: `  adit pubkey laptop.key
  ssh web cat web.key | adit pubkey -`,
		Args: oneArg("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := e.readPrivateKey(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.stdout, key.Public())
			return err
		},
	}
}

func (e *env) readPrivateKey(path string) (wire.PrivateKey, error) {
	if path != "-" {
		return config.LoadPrivateKey(path)
	}
	const most = 16 << 10 // of PEM with remarks around it
	data, err := io.ReadAll(io.LimitReader(e.stdin, most))
	if err != nil {
		return wire.PrivateKey{}, fmt.Errorf("stdin: %w", err)
	}
	key, err := config.ParsePrivateKey(data)
	if err != nil {
		return wire.PrivateKey{}, fmt.Errorf("stdin: %w", err)
	}
	return key, nil
}
