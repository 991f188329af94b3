package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
)

// commands is the tree: one file a command.
var commands = []func(*env) *cobra.Command{
	demoCommand,
	upCommand,
	relayCommand,
	statusCommand,
	pingCommand,
	keygenCommand,
	pubkeyCommand,
	checkCommand,
	versionCommand,
	manCommand,
	configurationTopic,
}

// Exit codes, of every command.
const (
	exitFailed = 1 // it was asked rightly, and failed
	exitUsage  = 2 // the command line or the configuration is wrong
)

// env is what a command has of the world around it.
type env struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	log    logFlags

	// begun says that the command line was understood. An error before that is about it.
	begun bool
}

// run is adit with all it touches passed in. It returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &checkedWriter{w: stdout}
	e := &env{stdin: stdin, stdout: out, stderr: stderr}
	root := rootCommand(e)
	root.SetArgs(args)
	err := root.Execute()
	if err == nil && out.err != nil {
		err = fmt.Errorf("writing the output: %w", out.err)
	}
	return e.tell(err)
}

// tell prints err, if it is one, as one line, or as one line for each error of a
// configuration, and returns the exit code that goes with it.
func (e *env) tell(err error) int {
	var (
		wrong config.Errors
		usage usageError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintln(e.stderr, wrong)
		return exitUsage
	case errors.As(err, &usage), !e.begun:
		fmt.Fprintln(e.stderr, "adit:", oneLine(err))
		return exitUsage
	default:
		fmt.Fprintln(e.stderr, "adit:", oneLine(err))
		return exitFailed
	}
}

// oneLine is for errors of others, which may be longer than that.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// usageError is an error of whoever wrote the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func rootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "adit",
		Short: "An encrypted overlay network that needs no root where there is none to be had",
		Long: `adit joins machines into one encrypted network. A peer ends it in a kernel TUN
device or, without root, in a TCP/IP stack inside its own process. Peers that
cannot reach each other directly meet at a relay, which cannot read what they say.`,
		Example: `  adit keygen --out laptop.key        make a key, once a machine
  adit help configuration             see what a configuration looks like
  adit check -c adit.yaml             see whether yours is right`,
		Version:       thisBuild().String(),
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := e.log.check(); err != nil {
				return err
			}
			e.begun = true
			return nil
		},
	}
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.Flags().Bool("version", false, "print which adit this is") // cobra's own takes -v
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w: see %s --help", err, cmd.CommandPath())
	})
	e.log.register(root)
	for _, command := range commands {
		root.AddCommand(command(e))
	}
	root.SetHelpCommand(helpCommand(root))
	strictCompletion(root)
	return root
}

func unknownCommand(cmd *cobra.Command, name string) error {
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usagef("unknown command %q: did you mean %s?", name, strings.Join(near, " or "))
	}
	return usagef("unknown command %q: see %s --help", name, cmd.CommandPath())
}

// helpCommand replaces cobra's, which calls an unknown topic a success.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell about a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(root, strings.Join(args, " "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range root.Commands() {
				if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// wants is an error about the arguments of cmd.
func wants(cmd *cobra.Command, format string, args ...any) error {
	name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
	return usagef("%s %s: see %s --help", name, fmt.Sprintf(format, args...), cmd.CommandPath())
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return wants(cmd, "takes no argument, got %q", args[0])
	}
	return nil
}

func oneArg(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return wants(cmd, "wants one %s, got %d", name, len(args))
		}
		return nil
	}
}

// configFlag adds -c, which every command that reads a configuration has.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "the configuration `FILE`")
	cmd.MarkFlagFilename("config", "yaml", "yml")
}

// needConfig reports a missing -c.
func needConfig(cmd *cobra.Command, path string) error {
	if path == "" {
		return wants(cmd, "wants -c FILE, the configuration")
	}
	return nil
}

// checkedWriter remembers the first error, which those who print help do not look at.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err != nil && c.err == nil {
		c.err = err
	}
	return n, err
}
