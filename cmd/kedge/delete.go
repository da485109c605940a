package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

func (c *cli) deleteEntityCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete KEY=VALUE...", Short: "Delete an entity from every view whose key has these parts", Args: cobra.MinimumNArgs(1),
		Long: "Delete an entity: its values leave memory, tables and files, and rows of it that come late stay hidden.\n" +
			"There is no way back.",
		Example: "  kedge features delete driver_id=7\n  kedge features delete driver_id=7 zone=north",
		RunE:    c.deleteEntity,
	}
}

func (c *cli) deleteEntity(cmd *cobra.Command, args []string) error {
	in := app.EntityDelete{Entity: map[string]string{}}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if _, twice := in.Entity[name]; !ok || name == "" || twice {
			return &usageError{fmt.Errorf("%q: want KEY=VALUE, each key once", a), "features delete"}
		}
		in.Entity[name] = value
	}
	b, err := c.send(cmd.Context(), http.MethodPost, "/v1/entities/delete", "application/json", in)
	if err != nil {
		return err
	}
	var out app.EntityDeleted
	if err := json.Unmarshal(b, &out); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	for _, v := range out.Views {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d keys, %d stored rows\n", v.View, v.Keys, v.Rows)
	}
	if !out.Erased {
		fmt.Fprintln(cmd.OutOrStdout(), "the stored rows are erased in the background, within minutes")
	}
	return nil
}
