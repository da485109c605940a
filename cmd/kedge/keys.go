package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

// keysCommand makes, lists, rotates and ends API keys.
func (c *cli) keysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "API keys: who may do what in which namespace", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.keysListCommand(), c.keysCreateCommand(), c.keysRotateCommand(), c.keysRevokeCommand(), c.keysWhoamiCommand())
	return cmd
}

func (c *cli) keysListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Keys that you may see, without their secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list app.KeyList
			if err := c.get(cmd.Context(), "/v1/keys", &list); err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tSUBJECT\tGRANTS\tCREATED\tEXPIRES\tLAST USED")
			day := func(t time.Time) string {
				if t.IsZero() {
					return "–"
				}
				return t.UTC().Format("2006-01-02 15:04")
			}
			for _, k := range list.Keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Subject, strings.Join(k.Grants, " "), day(k.Created), day(k.Expires), day(k.LastUsed))
			}
			return w.Flush()
		},
	}
}

func (c *cli) keysCreateCommand() *cobra.Command {
	var subject, expires string
	var grants []string
	cmd := &cobra.Command{
		Use: "create --for WHO --grant NAMESPACE:ROLE,…", Short: "Make a key; it is printed once", Args: cobra.NoArgs,
		Long: "Make a key. Its secret is printed once and kept nowhere.\nRoles: viewer looks; producer sends events, reads features, asks models; scientist defines and trains;\noperator rolls out and repairs; admin does everything in its namespace. The namespace * means all, and the installation.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := map[string]any{"subject": subject, "grants": grants}
			if expires != "" {
				in["expires"] = expires
			}
			return c.printKey(cmd, "/v1/keys", in)
		},
	}
	cmd.Flags().StringVar(&subject, "for", "", "who uses it, as the audit names them")
	cmd.Flags().StringArrayVar(&grants, "grant", nil, "NAMESPACE:ROLE,…; may be given again")
	cmd.Flags().StringVar(&expires, "expires", "", "how long it works, e.g. 90d (for ever)")
	_ = cmd.MarkFlagRequired("for") // fails for an unknown flag alone
	_ = cmd.MarkFlagRequired("grant")
	return cmd
}

func (c *cli) keysRotateCommand() *cobra.Command {
	var overlap string
	cmd := &cobra.Command{
		Use: "rotate ID", Short: "Make a key that takes another's place", Args: exactly(1, "keys rotate"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.printKey(cmd, "/v1/keys/"+url.PathEscape(args[0])+"/rotate", map[string]any{"overlap": overlap})
		},
	}
	cmd.Flags().StringVar(&overlap, "overlap", "1h", "how long the old key goes on working")
	return cmd
}

func (c *cli) printKey(cmd *cobra.Command, path string, in any) error {
	b, err := c.send(cmd.Context(), http.MethodPost, path, "application/json", in)
	if err != nil {
		return err
	}
	var made app.MadeKey
	if err := json.Unmarshal(b, &made); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "key %s for %s: %s; it is shown once\n", made.ID, made.Subject, strings.Join(made.Grants, " "))
	fmt.Fprintln(cmd.OutOrStdout(), made.Key)
	return nil
}

func (c *cli) keysRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a key at once", Args: exactly(1, "keys revoke"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := c.send(cmd.Context(), http.MethodDelete, "/v1/keys/"+url.PathEscape(args[0]), "application/json", nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: revoked\n", args[0])
			return nil
		},
	}
}

func (c *cli) keysWhoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Who the server takes you for, and what you may do", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var w app.Whoami
			if err := c.get(cmd.Context(), "/v1/whoami", &w); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s, by %s, in namespace %s: %s\n", w.Subject, w.Method, w.Namespace, strings.Join(w.Roles, ", "))
			return nil
		},
	}
}
