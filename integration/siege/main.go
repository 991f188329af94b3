//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/adit-overlay/adit/integration/internal/stage"
)

func main() { stage.Main("siege", besiege) }

// options are what the command line says.
type options struct {
	plan
	json, markdown string
	list           bool
}

// besiege is the whole program: what is wanted, on what machine, the programs, the attacks, the report.
func besiege(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.list {
		for _, r := range o.rows() {
			fmt.Printf("%s: %s\n", r.id, r.attack)
		}
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if len(o.rows()) == 0 {
		return errors.New("-run leaves no row; -list shows all")
	}
	r := &results{Command: "go run ./integration/siege " + strings.Join(args, " "), Quick: o.quick}
	if r.Machine, err = stage.This(ctx); err != nil {
		return err
	}
	if o.programs, err = os.MkdirTemp("", "adit-siege-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.programs)
	if err := os.Chmod(o.programs, 0o755); err != nil {
		return err
	}
	o.progress("building")
	if err := build(ctx, o.programs); err != nil {
		return err
	}
	if w := r.Machine.Warning(); w != "" {
		o.progress("%s", w)
	}
	r.Rows = o.run(ctx, o.rows())
	return o.report(r)
}

// build builds adit and who attacks it into dir.
func build(ctx context.Context, dir string) error {
	const self = "github.com/adit-overlay/adit/integration/siege"
	source, err := stage.GoTool(ctx, "", "list", "-f", "{{.Dir}}", self)
	if err != nil {
		return err
	}
	_, err = stage.GoTool(ctx, source, "build", "-o", dir+string(filepath.Separator), "../../cmd/adit", "../internal/box", "../bench/internal/members", "./internal/...")
	return err
}

// report writes the results to where they are wanted. That something did not hold is an error.
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
	if n := r.broken(); n > 0 {
		return fmt.Errorf("%d of what was asked did not hold, see above", n)
	}
	return nil
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("siege", flag.ContinueOnError)
	rows := f.String("run", "", "run only rows whose names match the `regexp`")
	f.BoolVar(&o.quick, "quick", false, "short attacks, and no figure of speed is held against anybody: for a look")
	f.StringVar(&o.json, "json", "", "write all figures to `FILE`")
	f.StringVar(&o.markdown, "markdown", "", "write the table to `FILE`")
	f.BoolVar(&o.list, "list", false, "list rows, and attack nothing")
	if err := f.Parse(args); err != nil {
		return nil, errors.Join(err, flag.ErrHelp)
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	var err error
	if o.only, err = regexp.Compile(*rows); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	o.limits = usualLimits
	o.progress = stage.Progress()
	return o, nil
}
