package main

import "github.com/spf13/cobra"

// strictCompletion makes cobra's completion command refuse a shell it does not know, which it
// would answer with its help and success.
func strictCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		cmd.Short = "Print the completions of a shell"
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wants(cmd, "wants a shell: bash, zsh, fish or powershell")
			}
			return wants(cmd, "does not know %q: want bash, zsh, fish or powershell", args[0])
		}
	}
}
