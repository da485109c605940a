package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/drift/files"
	"github.com/kedge-ml/kedge/drift/report"
)

// driftedStatus is the exit status of a comparison that found drift.
const driftedStatus = 3

// exitError ends the process with a status of its own.
type exitError struct {
	status int
	error
}

func (e *exitError) Unwrap() error { return e.error }

type compareFlags struct {
	format, html, junit string
	columns, ignore     []string
	categories          []string
	thresholds          map[string]string
	alpha, floor, share float64
	preset              string
	chunk               int
	never, detectors    bool
}

func (c *cli) compareCommand() *cobra.Command {
	var f compareFlags
	d := files.DefaultOptions()
	cmd := &cobra.Command{
		Use: "compare REFERENCE NEW", Short: "Compare two Parquet or CSV files, without a server", Args: exactly(2, "compare"),
		Long: "Compare two Parquet or CSV files column by column, without a server.\n\n" +
			"A column drifted when chance does not explain its distance (Kolmogorov-Smirnov or χ², corrected for the number of\n" +
			"columns) and the distance is at least the threshold. Exit status: 0 no drift, 3 drift, 1 failed, 2 called wrongly.\n\n" +
			"--preset judges as another tool would by default, to see what it would have said: evidently (its automatic test of each\n" +
			"column; the data drifted when half of the columns did), nannyml (ten chunks of each file, or of --chunk-size rows,\n" +
			"against three deviations of the reference's chunks). --detectors says what every detector finds in the rows.",
		Example: "  kedge compare train.parquet today.parquet\n  kedge compare a.parquet b.parquet --threshold amount=0.2 -o json --html drift.html\n" +
			"  kedge compare a.parquet b.parquet --preset evidently\n  kedge compare a.parquet b.parquet --columns amount --detectors",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.preset == files.Evidently && !cmd.Flags().Changed("share") {
				f.share = files.EvidentlyShare
			}
			return f.run(cmd, args[0], args[1])
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.format, "output", "o", "table", "table or json")
	fl.StringVar(&f.html, "html", "", "write a page with plots to this file")
	fl.StringVar(&f.junit, "junit", "", "write JUnit XML to this file: a test per column")
	fl.StringSliceVar(&f.columns, "columns", nil, "columns to compare (all that both files have)")
	fl.StringSliceVar(&f.ignore, "ignore", nil, "columns to leave out")
	fl.StringSliceVar(&f.categories, "categories", nil, "numeric columns that are categories")
	fl.StringToStringVar(&f.thresholds, "threshold", nil, "column=distance that counts as relevant")
	fl.Float64Var(&f.floor, "floor", d.Floor, "distance that counts as relevant, for columns without a threshold")
	fl.Float64Var(&f.alpha, "alpha", d.Alpha, "false discovery rate among the columns")
	fl.Float64Var(&f.share, "share", 0, "status 3 only when at least this share of columns drifted")
	fl.StringVar(&f.preset, "preset", "", "judge as evidently or nannyml would")
	fl.IntVar(&f.chunk, "chunk-size", 0, "rows of a chunk, with --preset nannyml (a tenth of each file)")
	fl.BoolVar(&f.detectors, "detectors", false, "and what every detector finds, column by column")
	fl.BoolVar(&f.never, "exit-zero", false, "status 0 even with drift")
	return cmd
}

func (f *compareFlags) options() (files.Options, error) {
	o := files.Options{Columns: f.columns, Ignore: f.ignore, Categories: f.categories, Alpha: f.alpha, Floor: f.floor, Floors: map[string]float64{},
		Preset: f.preset, Chunk: f.chunk, Detectors: f.detectors}
	for name, text := range f.thresholds {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || v < 0 {
			return o, &usageError{fmt.Errorf("--threshold %s=%s: want a distance such as 0.1", name, text), "compare"}
		}
		o.Floors[name] = v
	}
	if f.alpha <= 0 || f.alpha >= 1 || f.floor < 0 || f.share < 0 || f.share > 1 {
		return o, &usageError{errors.New("--alpha, --floor, --share: want numbers between 0 and 1"), "compare"}
	}
	switch {
	case f.preset != "" && f.preset != files.Evidently && f.preset != files.NannyML:
		return o, &usageError{fmt.Errorf("--preset %q: want evidently or nannyml", f.preset), "compare"}
	case f.preset != "" && len(f.thresholds) > 0:
		return o, &usageError{errors.New("--preset has thresholds of its own: leave --threshold out"), "compare"}
	case f.chunk < 0 || f.chunk > 0 && f.preset != files.NannyML:
		return o, &usageError{errors.New("--chunk-size wants --preset nannyml and at least a row"), "compare"}
	}
	if f.format != "table" && f.format != "json" {
		return o, &usageError{fmt.Errorf("--output %q: want table or json", f.format), "compare"}
	}
	return o, nil
}

func (f *compareFlags) run(cmd *cobra.Command, before, now string) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	a, err := files.Open(before)
	if err != nil {
		return err
	}
	defer a.Close() //nolint:errcheck // only read
	b, err := files.Open(now)
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // only read
	r, err := files.Compare(a, b, o)
	if err != nil {
		return err
	}
	if err := f.write(cmd.OutOrStdout(), r, before, now); err != nil {
		return err
	}
	share := float64(r.Drifted) / float64(len(r.Columns))
	if r.Drifted > 0 && share >= f.share && !f.never {
		return &exitError{driftedStatus, fmt.Errorf("%d of %d columns drifted", r.Drifted, len(r.Columns))}
	}
	return nil
}

func (f *compareFlags) write(w io.Writer, r *files.Result, before, now string) error {
	if f.html != "" {
		if err := writeFile(f.html, func(w io.Writer) error { return report.Write(w, comparisonPage(r, before, now)) }); err != nil {
			return err
		}
	}
	if f.junit != "" {
		if err := writeFile(f.junit, func(w io.Writer) error { return writeJUnit(w, r) }); err != nil {
			return err
		}
	}
	if f.format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return printComparison(w, r)
}

func writeFile(path string, write func(io.Writer) error) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(out), out.Close())
}

func printComparison(w io.Writer, r *files.Result) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "column\tkind\tdrift\tdistance\tthreshold\tp\tpsi\tsentence")
	for _, c := range r.Columns {
		psi := "-"
		if c.PSI != nil {
			psi = fmt.Sprintf("%.3g", *c.PSI)
		}
		word := map[bool]string{true: c.Severity, false: "-"}[c.Drifted]
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.3g\t%.3g\t%.2g\t%s\t%s\n", c.Column, c.Kind, word, c.Effect, c.Floor, c.P, psi, c.Sentence)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if err := printDetectors(w, r); err != nil {
		return err
	}
	for _, n := range r.OnlyReference {
		fmt.Fprintf(w, "%s: only in the reference\n", n)
	}
	for _, n := range r.OnlyNew {
		fmt.Fprintf(w, "%s: only in the new file\n", n)
	}
	for _, n := range r.Lists {
		fmt.Fprintf(w, "%s: not compared, a row has several values of it\n", n)
	}
	_, err := fmt.Fprintf(w, "%d of %d columns drifted; %d rows against %d\n", r.Drifted, len(r.Columns), r.Rows, r.ReferenceRows)
	return err
}

// printDetectors prints what every detector says, where that was asked for.
func printDetectors(w io.Writer, r *files.Result) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	head := "\ncolumn\tdetector\tstatistic\tp\n"
	for _, c := range r.Columns {
		for _, d := range c.Detectors {
			statistic, p := fmt.Sprintf("%.4g", d.Statistic), "-"
			if d.P != nil {
				p = fmt.Sprintf("%.2g", *d.P)
			}
			if d.Reason != "" {
				statistic = d.Reason
			}
			fmt.Fprintf(tw, "%s%s\t%s\t%s\t%s\n", head, c.Column, d.Detector, statistic, p)
			head = ""
		}
	}
	return tw.Flush()
}

// junitSuite is what CI systems read.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Failure *junitMessage `xml:"failure,omitempty"`
	Skipped *junitMessage `xml:"skipped,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
}

func writeJUnit(w io.Writer, r *files.Result) error {
	s := junitSuite{Name: "kedge compare", Tests: len(r.Columns), Failures: r.Drifted}
	for _, c := range r.Columns {
		one := junitCase{Name: c.Column, Class: "drift"}
		switch {
		case c.Drifted:
			one.Failure = &junitMessage{c.Sentence}
		case c.Reason != "":
			one.Skipped = &junitMessage{c.Reason}
			s.Skipped++
		}
		s.Cases = append(s.Cases, one)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	return errors.Join(enc.Encode(s), enc.Close())
}

func comparisonPage(r *files.Result, before, now string) report.Data {
	d := report.Data{Title: "Drift of " + filepath.Base(now), Subtitle: "against " + filepath.Base(before), Made: time.Now()}
	d.Facts = []report.Fact{{Name: "columns drifted", Value: fmt.Sprintf("%d of %d", r.Drifted, len(r.Columns)), Bad: r.Drifted > 0},
		{Name: "rows now", Value: fmt.Sprint(r.Rows)}, {Name: "rows in the reference", Value: fmt.Sprint(r.ReferenceRows)}}
	for _, n := range r.OnlyReference {
		d.Notes = append(d.Notes, n+" is only in the reference.")
	}
	for _, n := range r.OnlyNew {
		d.Notes = append(d.Notes, n+" is only in the new file.")
	}
	for _, c := range r.Columns {
		col := report.Column{Name: c.Column, Detector: c.Detector, Severity: c.Severity, Sentence: c.Sentence, Drifted: c.Drifted, Effect: c.Effect, Floor: c.Floor}
		for _, b := range c.Bins {
			col.Bins = append(col.Bins, report.Bin{Label: b.Label, Ref: b.Ref, Cur: b.Cur})
		}
		d.Columns = append(d.Columns, col)
	}
	return d
}
