package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/drift/report"
	"github.com/kedge-ml/kedge/query"
)

// tellBlame prints what segments, columns and slices of rows are under
// suspicion. A question that has no answer yet says why.
func (c *cli) tellBlame(cmd *cobra.Command, f *aboutFlags) error {
	for _, kind := range []string{"segment_drift", "root_cause", "segment_search"} {
		r, err := f.request(kind, "drift")
		if err != nil {
			return err
		}
		r.Limit = 10
		fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", kind)
		if err := c.ask(cmd, r, "table"); err != nil {
			fmt.Fprintln(cmd.OutOrStdout(), err)
		}
	}
	return nil
}

// blamed is how many of each sort a page names.
const blamed = 5

// fillBlame names what is to blame, where something is.
func fillBlame(d *report.Data, answers map[string][]query.Frame) {
	name := func(what, sentence string) { d.Blame = append(d.Blame, report.Blame{What: what, Sentence: sentence}) }
	f := first(answers["segment_drift"])
	drifted, _ := values(f, "drifted").([]bool)
	seen := map[string]bool{}
	for i, segment := range texts(f, "segment") {
		key := segment + "/" + texts(f, "column")[i]
		if drifted[i] && !seen[key] && len(seen) < blamed { // the newest window of each
			seen[key] = true
			name("segment", texts(f, "sentence")[i])
		}
	}
	f = first(answers["segment_search"])
	shown, _ := values(f, "shown").([]bool)
	for i, is := range shown[:min(len(shown), blamed)] {
		if is {
			name("slice", texts(f, "sentence")[i])
		}
	}
	f = first(answers["root_cause"])
	sentences := texts(f, "sentence")
	for i, sentence := range sentences[:min(len(sentences), blamed)] {
		if numberAt(f, "times", i) > 1 || numberAt(f, "correlation", i) > 0.5 {
			name("cause", sentence)
		}
	}
}
