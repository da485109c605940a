package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// queryFlags are the members of a request.
type queryFlags struct {
	view, model, version, detector, from, to, step, params, format string
	columns, groupBy                                               []string
	filter, segment                                                map[string]string
	limit, points                                                  int
}

func (c *cli) queryCommand() *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use: "query KIND", Short: "Ask a question", Args: exactly(1, "query"),
		Long:    "Ask a question.\n\n" + kindHelp(),
		Example: "  kedge query throughput --from 1h --step 1m\n  kedge query rows --view driver_stats --limit 5\n  kedge query summary --model ride_cancel --columns wait_minutes --group-by district --from 30m -o csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.request(args[0], time.Now())
			if err != nil {
				return &usageError{err, "query"}
			}
			return c.ask(cmd, r, f.format)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.view, "view", "", "feature view")
	fl.StringVar(&f.model, "model", "", "model")
	fl.StringVar(&f.version, "version", "", "model version")
	fl.StringVar(&f.detector, "detector", "", "drift detector")
	fl.StringSliceVar(&f.columns, "columns", nil, "columns")
	fl.StringSliceVar(&f.groupBy, "group-by", nil, "columns or segments to group by")
	fl.StringToStringVar(&f.filter, "filter", nil, "column=value")
	fl.StringToStringVar(&f.segment, "segment", nil, "segment=value")
	fl.StringVar(&f.from, "from", "", "begin: RFC 3339, or how long ago (1h, 30m, 7d)")
	fl.StringVar(&f.to, "to", "", "end, likewise (now)")
	fl.StringVar(&f.step, "step", "", "length of a step")
	fl.IntVar(&f.limit, "limit", 0, "at most so many rows")
	fl.IntVar(&f.points, "max-points", 0, "at most so many steps")
	fl.StringVar(&f.params, "params", "", "further members, JSON")
	fl.StringVarP(&f.format, "output", "o", "table", "table, json, csv or arrow")
	return cmd
}

func (c *cli) searchCommand() *cobra.Command {
	filter, format, limit := map[string]string{}, "table", 0
	cmd := &cobra.Command{
		Use: "search WORD...", Short: "Find definitions by what they say: names, columns, descriptions, owners, tags", Args: cobra.MinimumNArgs(1),
		Example: "  kedge search spend\n  kedge search card country --filter kind=FeatureView,team=fraud",
		RunE: func(cmd *cobra.Command, args []string) error {
			if filter == nil {
				filter = map[string]string{}
			}
			filter["text"] = strings.Join(args, " ")
			return c.ask(cmd, query.Request{Kind: "search", Filter: filter, Limit: limit}, format)
		},
	}
	fl := cmd.Flags()
	fl.StringToStringVar(&filter, "filter", nil, "kind, owner, team or tier = value")
	fl.IntVar(&limit, "limit", 0, "at most so many")
	fl.StringVarP(&format, "output", "o", "table", "table, json, csv or arrow")
	return cmd
}

func kindHelp() string {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "Kinds:")
	for _, k := range query.Kinds() {
		fmt.Fprintf(tw, "  %s\t%s\n", k.Name, k.Help)
	}
	tw.Flush()
	return b.String()
}

func (f *queryFlags) request(kind string, now time.Time) (query.Request, error) {
	r := query.Request{Kind: kind, View: f.view, Model: f.model, Version: f.version, Detector: f.detector,
		Columns: f.columns, GroupBy: f.groupBy, Filter: f.filter, Segment: f.segment, Limit: f.limit, MaxPoints: f.points}
	var err error
	if r.From, err = parseTime(f.from, now); err != nil {
		return r, fmt.Errorf("--from: %w", err)
	}
	if r.To, err = parseTime(f.to, now); err != nil {
		return r, fmt.Errorf("--to: %w", err)
	}
	if f.step != "" {
		d, err := parseSpan(f.step)
		if err != nil {
			return r, fmt.Errorf("--step: %w", err)
		}
		r.Step = query.Duration(d)
	}
	if f.params != "" {
		if !json.Valid([]byte(f.params)) {
			return r, fmt.Errorf("--params: not JSON: %s", f.params)
		}
		r.Params = json.RawMessage(f.params)
	}
	return r, nil
}

// parseTime reads an instant, or how long ago it was; "" is no time.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" || s == "now" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	d, err := parseSpan(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q: want a time such as 2026-05-01T10:00:00Z, or how long ago such as 1h or 7d", s)
	}
	return now.Add(-d).UTC(), nil
}

// parseSpan reads "90s", "1h" or "7d".
func parseSpan(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	return time.ParseDuration(s)
}

// ask prints the answer to a request.
func (c *cli) ask(cmd *cobra.Command, r query.Request, format string) error {
	return c.printFrames(cmd, http.MethodPost, "/v1/query", r, format)
}

func (c *cli) printFrames(cmd *cobra.Command, method, path string, body any, format string) error {
	accept, ok := map[string]string{"table": web.TypeJSON, "json": web.TypeJSON, "csv": web.TypeCSV, "arrow": web.TypeArrow}[format]
	if !ok {
		return &usageError{fmt.Errorf("--output %q: want table, json, csv or arrow", format), cmd.Name()}
	}
	b, err := c.send(cmd.Context(), method, path, accept, body)
	if err != nil {
		return err
	}
	if format != "table" {
		_, err = cmd.OutOrStdout().Write(b)
		return err
	}
	var a query.Answer
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	for i := range a.Frames {
		if i > 0 {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		printFrame(cmd.OutOrStdout(), &a.Frames[i], len(a.Frames) > 1)
	}
	return nil
}

const maxCell = 60

// printFrame prints a frame as a table for people.
func printFrame(w io.Writer, f *query.Frame, named bool) {
	if named {
		fmt.Fprintf(w, "%s%s\n", f.Name, labelsOf(f))
	}
	for _, n := range f.Notices {
		fmt.Fprintf(w, "%s: %s\n", n.Severity, n.Text)
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for i, c := range f.Columns {
		fmt.Fprint(tw, strings.Repeat("\t", min(i, 1)), c.Name)
	}
	fmt.Fprintln(tw)
	for r := range f.Rows() {
		for i := range f.Columns {
			fmt.Fprint(tw, strings.Repeat("\t", min(i, 1)), cell(&f.Columns[i], r))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
	if f.Rows() == 0 {
		fmt.Fprintln(w, "(no rows)")
	}
}

func labelsOf(f *query.Frame) string {
	for _, c := range f.Columns {
		var parts []string
		for k, v := range c.Labels {
			if k != "column" && v != f.Name && v != "" {
				parts = append(parts, k+"="+v)
			}
		}
		if slices.Sort(parts); len(parts) > 0 {
			return " {" + strings.Join(parts, ", ") + "}"
		}
	}
	return ""
}

func cell(c *query.Column, row int) string {
	s := web.Text(c, row)
	if v, ok := c.Values.([]float64); ok {
		s = fmt.Sprintf("%.6g", v[row])
	}
	if v, ok := c.Values.([]*float64); ok && v[row] != nil {
		s = fmt.Sprintf("%.6g", *v[row])
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxCell {
		s = string(r[:maxCell-1]) + "…"
	}
	if s == "" {
		return "-"
	}
	return s
}
