package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

func (c *cli) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write one archive of everything a running kedge keeps", Args: cobra.ExactArgs(1),
		Long:    "Write one archive of everything a running kedge keeps: rows, definitions, the embedded broker with its offsets,\nartefacts. It works on meanwhile. The archive holds whatever was sent to it: keep it as you keep the data.",
		Example: "  kedge backup kedge-$(date +%F).tar\n  kedge restore kedge-2026-11-01.tar --data-dir kedge-restored",
		RunE: func(cmd *cobra.Command, args []string) error {
			partial := args[0] + ".partial"
			n, err := c.download(cmd, partial)
			if err == nil {
				err = os.Rename(partial, args[0])
			}
			if err != nil {
				return errors.Join(err, os.Remove(partial))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes\n", args[0], n)
			return nil
		},
	}
}

// download stores the archive; it is there whole, on disk, when this returns.
func (c *cli) download(cmd *cobra.Command, file string) (n int64, err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	req, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, strings.TrimSuffix(c.server, "/")+"/v1/backup", nil)
	if err != nil {
		return 0, err
	}
	res, err := c.do(req)
	if err != nil {
		return 0, c.explain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("back up: %w", answeredError(res))
	}
	if n, err = io.Copy(f, res.Body); err != nil {
		return n, fmt.Errorf("back up: the archive ended after %d bytes; the server's log says why: %w", n, err)
	}
	return n, f.Sync()
}

func restoreCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make a new data directory from a backup", Args: cobra.ExactArgs(1),
		Long: "Make a new data directory from a backup; then start kedge on it with `kedge run --data-dir`.\nWhat outside brokers have beyond the backup is read again from where its ledger ends.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := f.config(cmd)
			if err != nil {
				return err
			}
			in, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			m, err := app.Restore(cmd.Context(), cfg, in)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: as of %s\n", cfg.DataDir, m.Taken.Format("2006-01-02 15:04:05 MST"))
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.file, "config", "", "configuration file, YAML")
	fl.StringVar(&f.dataDir, "data-dir", app.DefaultConfig().DataDir, "the new folder")
	return cmd
}
