package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

func (c *cli) conformanceCommand() *cobra.Command {
	var model string
	oip := &cobra.Command{
		Use: "oip URL", Short: "Ask any server whether it speaks the Open Inference Protocol", Args: cobra.ExactArgs(1),
		Example: "  kedge conformance oip http://127.0.0.1:7070 --model elec",
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.CheckOIP(cmd.Context(), &http.Client{Transport: keyed{c}, Timeout: time.Minute}, args[0], model, cmd.OutOrStdout())
		},
	}
	oip.Flags().StringVar(&model, "model", "", "model to ask; default: the first of the repository index")
	cmd := &cobra.Command{Use: "conformance", Short: "Check servers against open protocols", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(oip)
	return cmd
}
