package main

import (
	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

func importFeastCommand() *cobra.Command {
	return &cobra.Command{
		Use: "feast REPO", Short: "Print a Feast repository's definitions as Kedge has them", Args: exactly(1, "import feast"),
		Long: "Print a Feast repository's entities, views, push sources and services as definitions that `kedge apply` takes. It\n" +
			"reads the registry file that `feast apply` wrote, and needs no Python. What has to be written by hand, such as\n" +
			"on-demand views, is told on standard error.",
		Example: "  kedge import feast feature_repo > definitions.yaml && kedge apply -f definitions.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.ImportFeast(args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}
