package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/drift/files"
)

func (c *cli) referenceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "reference", Short: "What monitors hold windows against", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var from string
	var columns, categories []string
	set := &cobra.Command{
		Use: "set NAME --from FILE", Short: "Make a reference from a Parquet or CSV file", Args: exactly(1, "set"),
		Long:    "Make a reference from a Parquet or CSV file, in the file's order. A Monitor names it:\n\n  reference: {file: NAME}",
		Example: "  kedge reference set train-2026-11 --from train.parquet",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := files.Open(from)
			if err != nil {
				return err
			}
			defer t.Close() //nolint:errcheck // only read
			r, left, err := files.Reference(t, columns, categories)
			if err != nil {
				return err
			}
			if _, err := c.send(cmd.Context(), http.MethodPost, "/v1/references/"+url.PathEscape(args[0]), "application/json", r); err != nil {
				return err
			}
			for name, why := range left {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is left out: %s\n", name, why)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "reference %s: %d columns of %d rows\n", args[0], len(r.Columns), t.Rows())
			return err
		},
	}
	set.Flags().StringVar(&from, "from", "", ".parquet or .csv file")
	set.Flags().StringSliceVar(&columns, "columns", nil, "columns (all that can be watched)")
	set.Flags().StringSliceVar(&categories, "categories", nil, "numeric columns that are categories")
	_ = set.MarkFlagRequired("from") // the flag exists
	cmd.AddCommand(set)
	return cmd
}
