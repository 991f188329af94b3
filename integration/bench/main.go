//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/adit-overlay/adit/integration/internal/stage"
)

func main() { stage.Main("bench", bench) }

// options are what the command line says.
type options struct {
	plan
	json, markdown string
	list           bool
}

// bench is the whole program: what is wanted, on what machine, the programs, the measuring, the report.
func bench(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.list {
		o.printPlan()
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if classes, _ := o.classes(); len(classes) == 0 {
		return errors.New("-rows and -contestants leave nothing to measure; -list shows what there is")
	}
	foreign := o.foreign()
	var m machine
	if m.Machine, err = stage.This(ctx); err != nil {
		return err
	}
	if foreign {
		if m.Rivals, err = rivalVersions(ctx); err != nil {
			return err
		}
	}
	if o.programs, err = os.MkdirTemp("", "adit-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.programs)
	o.progress("building")
	if err := build(ctx, o.programs, foreign); err != nil {
		return err
	}
	if w := m.Warning(); w != "" {
		o.progress("%s", w)
	}
	r := &results{Command: commandLine(args), Machine: m, Rounds: o.rounds, Quick: o.extent == quickly}
	if r.Classes, err = o.run(ctx); err != nil {
		r.writeText(os.Stdout) // what there is
		return err
	}
	return o.report(r)
}

// report writes the results to where they are wanted. That some are missing is an error too.
func (o *options) report(r *results) error {
	r.writeText(os.Stdout)
	if o.json != "" {
		if err := stage.WriteJSON(o.json, r); err != nil {
			return err
		}
	}
	if o.markdown != "" {
		var b strings.Builder
		r.writeMarkdown(&b)
		if err := os.WriteFile(o.markdown, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	if n := len(r.failures()); n > 0 {
		return fmt.Errorf("%d measurements failed, see above", n)
	}
	return nil
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	rows := f.String("rows", "", "measure only rows whose class/row matches the `regexp`")
	who := f.String("contestants", "", "measure only contestants whose class/name matches the `regexp`")
	quick := f.Bool("quick", false, "few rows, short, one round: for a look, not for figures")
	all := f.Bool("all", false, "all rows, also the less interesting, and all contestants")
	f.IntVar(&o.rounds, "rounds", 3, "measure everything so often")
	f.StringVar(&o.json, "json", "", "write all figures to `FILE`")
	f.StringVar(&o.markdown, "markdown", "", "write the tables to `FILE`")
	f.BoolVar(&o.list, "list", false, "list rows and contestants, and measure nothing")
	if err := f.Parse(args); err != nil {
		return nil, errors.Join(err, flag.ErrHelp)
	}
	var err error
	if o.plan.rows, err = regexp.Compile(*rows); err != nil {
		return nil, fmt.Errorf("-rows: %w", err)
	}
	if o.plan.contestants, err = regexp.Compile(*who); err != nil {
		return nil, fmt.Errorf("-contestants: %w", err)
	}
	o.extent, o.pace = usually, ordinaryPace
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1:
		return nil, fmt.Errorf("-rounds %d: want at least 1", o.rounds)
	case *quick && *all:
		return nil, errors.New("-quick and -all exclude each other")
	case *quick:
		o.extent, o.pace, o.rounds = quickly, quickPace, 1
	case *all:
		o.extent = everything
	}
	o.progress = stage.Progress()
	return o, nil
}

// printPlan lists what would be measured, as -rows and -contestants are to name it.
func (o *options) printPlan() {
	classes, rows := o.classes()
	for i, c := range classes {
		fmt.Println(c.Title)
		for _, x := range c.Contestants {
			fmt.Printf("  contestant %s/%s\n", c.ID, x.Name)
		}
		for _, r := range rows[i] {
			fmt.Printf("  row %s/%s\n", c.ID, r.id)
		}
	}
}

// commandLine is what to type to have the same again.
func commandLine(args []string) string {
	line := "go run ./integration/bench"
	for _, a := range args {
		if strings.ContainsAny(a, " |*()'") {
			a = "'" + a + "'"
		}
		line += " " + a
	}
	return line
}
