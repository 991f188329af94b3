package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/wire"
)

func keygenCommand(e *env) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "keygen [--out FILE]",
		Short: "Make a private key",
		Long: `Make a private key (X25519, as PKCS #8 in PEM).

With --out the key goes to FILE, which only you may read, and the public key is
printed, to be given to relays and other peers. A FILE that exists is never
overwritten. Without --out the private key is printed, and the public key goes
to stderr.`,
		Example: `  adit keygen --out laptop.key
  adit keygen | ssh web 'umask 077; cat > web.key'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("out") && out == "" {
				return usagef("--out is empty: want the FILE to write")
			}
			key, err := wire.GeneratePrivateKey(nil)
			if err != nil {
				return err
			}
			pem, err := key.MarshalPEM()
			if err != nil {
				return err
			}
			if out == "" {
				// The public key waits for the private one: alone it would be of no use.
				if _, err := e.stdout.Write(pem); err != nil {
					return fmt.Errorf("writing the key: %w", err)
				}
				fmt.Fprintln(e.stderr, "public key:", key.Public())
				return nil
			}
			if err := writeSecret(out, pem); err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.stdout, key.Public())
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write the private key to `FILE`, which must not exist")
	return cmd
}

// writeSecret makes a file for its owner alone. On an error nothing is left of it.
func writeSecret(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: a key is never overwritten; choose another name", path)
	}
	if err != nil {
		return fmt.Errorf("making the key file: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	// A key that others know already must not be lost with the power.
	return errors.Join(writeAndSync(f, data), f.Close())
}

func writeAndSync(f *os.File, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
