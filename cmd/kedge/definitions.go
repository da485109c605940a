package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

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
	cmd := &cobra.Command{
		Use: "get [KIND [NAME]]", Short: "Show definitions: what views and models look like", Args: cobra.MaximumNArgs(2),
		Example: "  kedge get\n  kedge get FeatureView driver_stats -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			for i, a := range args {
				q.Set([]string{"kind", "name"}[i], a)
			}
			var list app.DefinitionList
			if err := c.get(cmd.Context(), "/v1/definitions?"+q.Encode(), &list); err != nil {
				return err
			}
			if len(args) == 2 && len(list.Definitions) == 0 {
				return fmt.Errorf("no %s named %q", args[0], args[1])
			}
			return printDefinitions(cmd.OutOrStdout(), list, format)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "yaml", "yaml or json")
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

func (c *cli) applyCommand() *cobra.Command {
	var file, why string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Define or change views and models", Args: cobra.NoArgs,
		Long: "Define or change views and models. A document's version is the one it replaces: kedge get prints it,\nand a definition that has changed since is not overwritten.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			docs, err := readDocuments(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			for _, d := range docs {
				if err := c.applyOne(cmd, d, why); err != nil {
					return fmt.Errorf("%s %s: %w", d.Kind, d.Name, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML file, - for standard input")
	cmd.Flags().StringVar(&why, "why", "", "reason, kept with the change")
	_ = cmd.MarkFlagRequired("file") // the flag exists
	return cmd
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

func (c *cli) applyOne(cmd *cobra.Command, d document, why string) error {
	spec, err := json.Marshal(d.Spec)
	if err != nil {
		return err
	}
	b, err := c.send(cmd.Context(), http.MethodPost, "/v1/definitions", "application/json",
		app.Definition{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Version: d.Version, Why: why, Spec: spec})
	if err != nil {
		return err
	}
	var done app.Definition
	if err := json.Unmarshal(b, &done); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s: version %d\n", done.Kind, done.Name, done.Version)
	return nil
}
