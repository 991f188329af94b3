package main

import "github.com/spf13/cobra"

// configurationTopic is a page of help, not a command.
func configurationTopic(*env) *cobra.Command {
	return &cobra.Command{
		Use:   "configuration",
		Short: "What a configuration looks like",
		Long: `A peer has one file, by custom adit.yaml. The least it can say:

` + leastPeer + `
A relay's file lists who may use it:

` + leastRelay + `
A peer finds all other members by asking its relay, and reaches the one called
laptop as laptop.adit. Files are checked by adit check -c FILE; all keys are in
docs/configuration.md.`,
	}
}

// The keys in capitals are what adit pubkey prints: nobody should run with a key from a manual.
const (
	leastPeer = `  name: laptop
  private_key_file: laptop.key        # adit keygen --out laptop.key
  addresses: [10.9.0.2/24]
  relays:
    - {public_key: RELAY-KEY, endpoint: "relay.example.com:5040"}
`
	leastRelay = `  private_key_file: relay.key
  listen: ":5040"
  members:
    - {name: laptop, public_key: LAPTOP-KEY, allowed_ips: [10.9.0.2/32]}
    - {name: web, public_key: WEB-KEY, allowed_ips: [10.9.0.3/32]}
`
)
