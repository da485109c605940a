package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

// document is a definition as files hold it.
type document struct {
	Kind      string         `yaml:"kind"`
	Namespace string         `yaml:"namespace,omitempty"`
	Name      string         `yaml:"name"`
	Version   uint64         `yaml:"version,omitempty"`
	Spec      map[string]any `yaml:"spec"`
}

func (c *cli) getCommand() *cobra.Command {
	var format string
	var at string
	var bare bool
	cmd := &cobra.Command{
		Use: "get [KIND [NAME]]", Short: "Show definitions: what views and models look like", Args: cobra.MaximumNArgs(2),
		Example: "  kedge get\n  kedge get FeatureView driver_stats -o yaml > driver_stats.yaml\n  kedge get --at 24h",
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			for i, a := range args {
				q.Set([]string{"kind", "name"}[i], a)
			}
			then, err := parseTime(at, time.Now())
			if err != nil {
				return &usageError{fmt.Errorf("--at: %w", err), "get"}
			}
			if !then.IsZero() {
				q.Set("at", then.UTC().Format(time.RFC3339Nano))
			}
			var list app.DefinitionList
			if err := c.get(cmd.Context(), "/v1/definitions?"+q.Encode(), &list); err != nil {
				return err
			}
			if len(args) == 2 && len(list.Definitions) == 0 {
				return fmt.Errorf("no %s named %q", args[0], args[1])
			}
			for i := range list.Definitions {
				if bare {
					list.Definitions[i].Version = 0
				}
			}
			return printDefinitions(cmd.OutOrStdout(), list, format)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "yaml", "yaml or json")
	cmd.Flags().BoolVar(&bare, "bare", false, "without versions: files for Git")
	cmd.Flags().StringVar(&at, "at", "", "what was defined at this time: 2026-11-01T10:00:00Z, or 2h for two hours ago")
	return cmd
}

func printDefinitions(w io.Writer, list app.DefinitionList, format string) error {
	switch format {
	case "json":
		return printJSON(w, list)
	case "yaml":
	default:
		return &usageError{fmt.Errorf("--output %q: want yaml or json", format), "get"}
	}
	for i, d := range list.Definitions {
		doc := document{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Version: d.Version}
		if err := json.Unmarshal(d.Spec, &doc.Spec); err != nil {
			return fmt.Errorf("%s %s: %w", d.Kind, d.Name, err)
		}
		b, err := yaml.MarshalWithOptions(doc, yaml.IndentSequence(true))
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(w, "---")
		}
		fmt.Fprint(w, string(b))
	}
	return nil
}

func readDocuments(file string, stdin io.Reader) ([]document, error) {
	in := stdin
	if file != "-" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	var out []document
	dec := yaml.NewDecoder(in, yaml.Strict())
	for {
		var d document
		err := dec.Decode(&d)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
		}
		out = append(out, d)
	}
}
