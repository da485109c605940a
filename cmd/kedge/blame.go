package main

import (
	"fmt"

	"github.com/spf13/cobra"
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
