package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/report"
	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/query"
)

// aboutFlags name a view or a model and a range.
type aboutFlags struct{ view, model, from, to, format string }

func (f *aboutFlags) add(cmd *cobra.Command, view bool) {
	if view {
		cmd.Flags().StringVar(&f.view, "view", "", "feature view")
	}
	cmd.Flags().StringVar(&f.model, "model", "", "model")
	cmd.Flags().StringVar(&f.from, "from", "", "begin: RFC 3339, or how long ago (1h, 30m, 7d)")
	cmd.Flags().StringVar(&f.to, "to", "", "end, likewise (now)")
}

func (f *aboutFlags) request(kind, command string) (query.Request, error) {
	r, err := (&queryFlags{view: f.view, model: f.model, from: f.from, to: f.to}).request(kind, time.Now())
	if err != nil {
		return r, &usageError{err, command}
	}
	return r, nil
}

func (f *aboutFlags) named(command string) error {
	if (f.view == "") == (f.model == "") {
		return &usageError{errors.New("want --view or --model, one of them"), command}
	}
	return nil
}

func (c *cli) driftCommand() *cobra.Command {
	var f aboutFlags
	var segments bool
	cmd := &cobra.Command{
		Use: "drift", Short: "What is open, and what moved most", Args: cobra.NoArgs,
		Example: "  kedge drift\n  kedge drift --model ride_cancel\n  kedge drift --model ride_cancel --segments",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if both := f.view != "" && f.model != ""; both || segments && f.view+f.model == "" {
				return f.named("drift")
			}
			for i, kind := range []string{"monitors", "incidents", "contributions"} {
				if kind == "contributions" && f.view+f.model == "" {
					break
				}
				r, err := f.request(kind, "drift")
				if err != nil {
					return err
				}
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := c.ask(cmd, r, "table"); err != nil {
					return err
				}
			}
			if !segments {
				return nil
			}
			return c.tellBlame(cmd, &f)
		},
	}
	f.add(cmd, true)
	cmd.Flags().BoolVar(&segments, "segments", false, "and which segments, columns and slices of rows are to blame")
	return cmd
}

func (c *cli) performanceCommand() *cobra.Command {
	var f aboutFlags
	var metrics, groupBy []string
	var segment map[string]string
	cmd := &cobra.Command{
		Use: "performance --model MODEL", Short: "What a model is worth: as labels come, and expected before they do", Args: cobra.NoArgs,
		Example: "  kedge performance --model ride_cancel --metrics roc_auc,accuracy\n  kedge performance --model ride_cancel --group-by version --metrics roc_auc\n  kedge performance --model ride_cancel --segment district=",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.model == "" {
				return &usageError{errors.New("want --model"), "performance"}
			}
			r, err := f.request("performance", "performance")
			if err != nil {
				return err
			}
			r.Columns, r.GroupBy, r.Segment = metrics, groupBy, segment
			return c.ask(cmd, r, f.format)
		},
	}
	f.add(cmd, false)
	cmd.Flags().StringSliceVar(&metrics, "metrics", nil, "metrics (all)")
	cmd.Flags().StringSliceVar(&groupBy, "group-by", nil, "a segment whose values are shown one by one; version is one")
	cmd.Flags().StringToStringVar(&segment, "segment", nil, "segment=value; segment= for the gaps between its values")
	cmd.Flags().StringVarP(&f.format, "output", "o", "table", "table, json, csv or arrow")
	return cmd
}

func (c *cli) monitorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "monitor", Short: "What is watched, and what a policy would have said", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, sub := range []struct{ use, kind, short string }{
		{"list", "monitors", "What is watched, against what, and how far each monitor is"},
		{"preview", "reference", "What may be expected of a reference"},
	} {
		var f aboutFlags
		one := &cobra.Command{Use: sub.use, Short: sub.short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.request(sub.kind, "monitor "+sub.use)
			if err != nil {
				return err
			}
			return c.ask(cmd, r, "table")
		}}
		f.add(one, true)
		cmd.AddCommand(one)
	}
	cmd.AddCommand(c.backtestCommand(), c.learnCommand())
	return cmd
}

func (c *cli) backtestCommand() *cobra.Command {
	var f aboutFlags
	var p struct {
		Alpha    float64 `json:"alpha,omitempty"`
		Need     int     `json:"need,omitempty"`
		Of       int     `json:"of,omitempty"`
		Clear    int     `json:"clear,omitempty"`
		Cooldown string  `json:"cooldown,omitempty"`
	}
	cmd := &cobra.Command{
		Use: "backtest", Short: "Replay past windows under a policy: how often would it have told somebody?", Args: cobra.NoArgs,
		Example: "  kedge monitor backtest --model ride_cancel --from 7d --need 3 --of 4",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.named("monitor backtest"); err != nil {
				return err
			}
			r, err := f.request("backtest", "monitor backtest")
			if err != nil {
				return err
			}
			if r.Params, err = json.Marshal(p); err != nil {
				return err
			}
			return c.ask(cmd, r, "table")
		},
	}
	f.add(cmd, true)
	fl := cmd.Flags()
	fl.Float64Var(&p.Alpha, "alpha", 0, "false discovery rate within a window")
	fl.IntVar(&p.Need, "need", 0, "drifted windows that open an incident …")
	fl.IntVar(&p.Of, "of", 0, "… among the last so many")
	fl.IntVar(&p.Clear, "clear", 0, "calm windows in a row that end it")
	fl.StringVar(&p.Cooldown, "cooldown", "", "silence after an end, such as 6h")
	return cmd
}

func (c *cli) incidentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "incident", Short: "Say what is to become of an incident", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, verb := range []struct {
		do    drift.ActionVerb
		short string
	}{
		{drift.Acknowledge, "Somebody is on it: silence until it ends"},
		{drift.Snooze, "Silence for a while"},
		{drift.Accept, "What the column is like since is its new reference, for good or until a time"},
	} {
		var why, span, until string
		one := &cobra.Command{Use: string(verb.do) + " ID", Short: verb.short, Args: exactly(1, string(verb.do)), RunE: func(cmd *cobra.Command, args []string) error {
			return c.decide(cmd, verb.do, args[0], why, span, until)
		}}
		one.Flags().StringVar(&why, "why", "", "reason, kept with the decision")
		_ = one.MarkFlagRequired("why") // the flag exists
		switch verb.do {
		case drift.Snooze:
			one.Flags().StringVar(&span, "for", "24h", "how long from now on")
		case drift.Accept:
			one.Flags().StringVar(&span, "for", "", "how long from now on (for good)")
		}
		if verb.do != drift.Acknowledge {
			one.Flags().StringVar(&until, "until", "", "end by the time of the rows, RFC 3339, instead")
			one.MarkFlagsMutuallyExclusive("for", "until")
		}
		cmd.AddCommand(one)
	}
	return cmd
}

// decide finds an incident and writes what was decided to the registry.
func (c *cli) decide(cmd *cobra.Command, do drift.ActionVerb, id, why, span, until string) error {
	now := time.Now().UTC()
	end, err := ending(span, until, now)
	if err != nil {
		return &usageError{err, "incident " + string(do)}
	}
	f, err := c.frame(cmd.Context(), query.Request{Kind: "incidents", Limit: 1000})
	if err != nil {
		return err
	}
	row := -1
	for i, known := range texts(f, "id") {
		if known == id {
			row = i
		}
	}
	if row < 0 {
		return fmt.Errorf("no incident %q in the last week: kedge query incidents lists them", id)
	}
	if err := decidable(f, row, do, end); err != nil {
		return err
	}
	a := drift.Action{Do: do, Monitor: texts(f, "monitor")[row], Column: texts(f, "column")[row], Detector: texts(f, "detector")[row], Until: end}
	if do != drift.Snooze { // which is about the column, whatever opens
		a.Incident = id
	}
	spec, err := json.Marshal(a)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s-%d", do, id, now.Unix())
	if _, err := c.send(cmd.Context(), http.MethodPost, "/v1/definitions", "application/json", app.Definition{Kind: drift.ActionKind, Name: name, Why: why, Spec: spec}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %s %s\n", do, id, a.Monitor, a.Column)
	return err
}

// decidable refuses what would change nothing: of an incident that is over, and
// until a time at which it had not opened.
func decidable(f *query.Frame, row int, do drift.ActionVerb, until time.Time) error {
	id, state := texts(f, "id")[row], texts(f, "state")[row]
	if slices.Contains([]string{"resolved", "accepted", "lapsed"}, state) {
		return fmt.Errorf("%s %s: it is %s, and open no more; kedge query incidents shows what is", do, id, state)
	}
	if opened := column[time.Time](f, "opened")[row]; !until.IsZero() && !until.After(opened) {
		return fmt.Errorf("%s %s: until %s is not after it opened, at %s; times are those of the rows", do, id, until.Format(time.RFC3339), opened.Format(time.RFC3339))
	}
	return nil
}

// ending is when a decision ends: a while from now, or a time; zero: never.
func ending(span, until string, now time.Time) (time.Time, error) {
	switch {
	case until != "":
		t, err := time.Parse(time.RFC3339, until)
		if err != nil {
			return t, fmt.Errorf("--until %q: want a time such as 2026-12-01T00:00:00Z", until)
		}
		return t, nil
	case span != "":
		d, err := parseSpan(span)
		if err != nil {
			return time.Time{}, fmt.Errorf("--for: %w", err)
		}
		return now.Add(d), nil
	}
	return time.Time{}, nil
}

// frame asks for the first frame of an answer.
func (c *cli) frame(ctx context.Context, r query.Request) (*query.Frame, error) {
	frames, err := c.frames(ctx, r)
	if err != nil || len(frames) == 0 {
		return &query.Frame{}, err
	}
	return &frames[0], nil
}

func (c *cli) frames(ctx context.Context, r query.Request) ([]query.Frame, error) {
	b, err := c.send(ctx, http.MethodPost, "/v1/query", "application/json", r)
	if err != nil {
		return nil, err
	}
	var a query.Answer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	return a.Frames, nil
}

func (c *cli) reportCommand() *cobra.Command {
	var f aboutFlags
	var out, version, against string
	var keep bool
	cmd := &cobra.Command{
		Use: "report", Short: "One HTML page about a view or a model, with plots", Args: cobra.NoArgs,
		Long:    "One HTML page about a view or a model, with plots: as a file, or kept by the server under an address that stays.\n--keep takes drift:write too.",
		Example: "  kedge report --model ride_cancel --from 24h --out ride_cancel.html\n  kedge report --model ride_cancel --keep\n  kedge report --model ride_cancel --version 2 --against 1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.named("report"); err != nil {
				return err
			}
			r, err := f.request("verdicts", "report")
			if err != nil {
				return err
			}
			about := report.About{View: f.view, Model: f.model, From: r.From, To: r.To, Version: version, Against: against}
			if err := about.Validate(); err != nil {
				return &usageError{err, "report"}
			}
			if keep {
				return c.keepReport(cmd, about)
			}
			d, err := report.Gather(cmd.Context(), about, c.frames)
			if err != nil {
				return err
			}
			if out == "-" {
				return report.Write(cmd.OutOrStdout(), *d)
			}
			return writeFile(out, func(w io.Writer) error { return report.Write(w, *d) })
		},
	}
	f.add(cmd, true)
	cmd.Flags().StringVar(&out, "out", "report.html", "file, - for standard output")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep it on the server and print its address, instead of a file")
	cmd.Flags().StringVar(&version, "version", "", "a version of the model, held against another one")
	cmd.Flags().StringVar(&against, "against", "", "the other version")
	cmd.MarkFlagsRequiredTogether("version", "against")
	cmd.MarkFlagsMutuallyExclusive("keep", "out")
	return cmd
}

// keepReport lets the server make the page and prints where it stays.
func (c *cli) keepReport(cmd *cobra.Command, about report.About) error {
	b, err := c.send(cmd.Context(), http.MethodPost, "/v1/reports", "application/json", about)
	if err != nil {
		return err
	}
	var kept app.Report
	if err := json.Unmarshal(b, &kept); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSuffix(c.server, "/")+kept.Path)
	return err
}

func texts(f *query.Frame, name string) []string { return column[string](f, name) }

// column is what a frame has under a name; nil: nothing of that type.
func column[T any](f *query.Frame, name string) []T {
	for _, c := range f.Columns {
		if v, ok := c.Values.([]T); ok && c.Name == name {
			return v
		}
	}
	return nil
}
