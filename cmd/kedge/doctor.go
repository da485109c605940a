package main

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/query"
)

// bundled is one file of a support bundle: a question to the server.
type bundled struct {
	file, method, path, accept string
	body                       any
}

func supportBundle() []bundled {
	ask := func(kind string) any { return query.Request{Kind: kind} }
	return []bundled{
		{"status.json", http.MethodGet, "/v1/status", "application/json", nil},
		{"ready.json", http.MethodGet, "/readyz", "application/json", nil},
		{"config.yaml", http.MethodGet, "/v1/config", "application/yaml", nil}, // secrets hidden by the server
		{"metrics.txt", http.MethodGet, "/metrics", "text/plain", nil},
		{"topics.json", http.MethodGet, "/v1/topics", "application/json", nil},
		{"definitions.json", http.MethodGet, "/v1/definitions", "application/json", nil},
		{"ledger.csv", http.MethodPost, "/v1/query", "text/csv", ask("ledger")},
		{"freshness.csv", http.MethodPost, "/v1/query", "text/csv", ask("freshness")},
		{"disk.csv", http.MethodPost, "/v1/query", "text/csv", ask("disk")},
	}
}

func (c *cli) doctorCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong, and put what a helper needs into one file, without secrets or events", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = "kedge-doctor-" + time.Now().UTC().Format("20060102-150405") + ".zip"
			}
			if err := c.bundle(cmd, file); err != nil {
				return fmt.Errorf("support bundle %s: %w", file, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: status, configuration without secrets, metrics, definitions, ledger; no events\n", file)
			var s app.Status
			if err := c.get(cmd.Context(), "/v1/status", &s); err != nil {
				return err
			}
			return diagnose(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "file of the bundle (kedge-doctor-TIME.zip)")
	return cmd
}

// diagnose prints what does not work; its error makes the command fail.
func diagnose(w io.Writer, s app.Status) error {
	ill := 0
	for _, p := range s.Health.Parts {
		if !p.Ready {
			ill++
			fmt.Fprintf(w, "  %s: %s\n", p.Name, p.Detail)
		}
	}
	for _, p := range s.Partitions {
		if p.Waiting != "" {
			ill++
			fmt.Fprintf(w, "  %s/%d: %s\n", p.Topic, p.Partition, p.Waiting)
		}
	}
	if ill > 0 {
		return fmt.Errorf("%d things are wrong", ill)
	}
	fmt.Fprintln(w, "nothing is wrong that the server knows of")
	return nil
}

func (c *cli) bundle(cmd *cobra.Command, file string) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z := zip.NewWriter(f)
	about, err := json.Marshal(map[string]any{"version": version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "cpus": runtime.NumCPU(), "taken": time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := addToZip(z, "client.json", about); err != nil {
		return err
	}
	for _, q := range supportBundle() {
		b, err := c.send(cmd.Context(), q.method, q.path, q.accept, q.body)
		if err != nil { // the failure is what a helper wants to see
			b, q.file = []byte(err.Error()), q.file+".error"
		}
		if err := addToZip(z, q.file, b); err != nil {
			return err
		}
	}
	return z.Close()
}

func addToZip(z *zip.Writer, name string, b []byte) error {
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}
