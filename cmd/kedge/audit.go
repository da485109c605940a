package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/query"
)

// auditCommand shows who did what, and whether that was written over.
func (c *cli) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Who changed what, and who was refused", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var limit int
	var format string
	list := &cobra.Command{
		Use: "list", Short: "The newest entries of your namespace", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.ask(cmd, query.Request{Kind: "audit", Limit: limit}, format)
		},
	}
	list.Flags().IntVar(&limit, "limit", 50, "how many")
	list.Flags().StringVar(&format, "format", "table", "table, json or csv")
	verify := &cobra.Command{
		Use: "verify", Short: "Check the chain of hashes from the first entry (status 3: something was changed)", Args: cobra.NoArgs,
		Long: "Check the chain of hashes from the first entry. Keep the head that it prints elsewhere: a later run that no longer\nhas it says that the end was cut or rewritten.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v auth.AuditReport
			if err := c.get(cmd.Context(), "/v1/audit/verify", &v); err != nil {
				return err
			}
			for _, f := range v.Faults {
				fmt.Fprintf(cmd.OutOrStdout(), "offset %d: %s\n", f.Offset, f.Why)
			}
			if len(v.Faults) > 0 {
				return &exitError{3, fmt.Errorf("%d of %d entries are not as they were written", len(v.Faults), v.Entries)}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d entries of %d writers, head %s: whole\n", v.Entries, v.Writers, v.Head)
			return nil
		},
	}
	cmd.AddCommand(list, verify)
	return cmd
}
