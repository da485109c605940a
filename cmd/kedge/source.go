package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/app"
)

func (c *cli) sourceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "source", Short: "Map existing topics, without touching their producers", Args: noArgs,
		Long: "Map existing topics, without touching their producers. A source is a definition: draft one from a sample,\ncheck what it would make, apply it with `kedge apply`; docs/sources.md has the language.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.sourceDraft(), c.sourceCheck())
	return cmd
}

func (c *cli) sourceDraft() *cobra.Command {
	in := app.SourceSample{}
	cmd := &cobra.Command{
		Use: "draft TOPIC", Short: "Propose a source from the newest records of a topic", Args: cobra.ExactArgs(1),
		Example: "  kedge source draft shop.scores --name shop > shop.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Topic = args[0]
			var draft app.SourceDraft
			if err := c.post(cmd, "/v1/sources/draft", in, &draft); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "drafted from %d records: read it, then: kedge source check FILE\n", draft.Records)
			fmt.Fprint(cmd.OutOrStdout(), draft.YAML)
			return nil
		},
	}
	cmd.Flags().StringVar(&in.Name, "name", "", "of the view or model (default: the topic's)")
	cmd.Flags().IntVar(&in.Records, "records", 1000, "how many of the newest records to look at")
	return cmd
}

func (c *cli) sourceCheck() *cobra.Command {
	var records int
	var format string
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Show what a source would make of its topic's newest records; nothing is stored", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			docs, err := readDocuments(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			checked := false
			for _, d := range docs {
				if d.Kind != source.Kind {
					continue
				}
				checked = true
				if err := c.checkOne(cmd, d, records, format); err != nil {
					return fmt.Errorf("%s: %w", d.Name, err)
				}
			}
			if !checked {
				return fmt.Errorf("%s has no document of kind %s", args[0], source.Kind)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&records, "records", 1000, "how many of the newest records to look at")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func (c *cli) checkOne(cmd *cobra.Command, d document, records int, format string) error {
	spec, err := json.Marshal(d.Spec)
	if err != nil {
		return err
	}
	var r app.SourceReport
	if err := c.post(cmd, "/v1/sources/check", app.SourceSample{Spec: spec, Records: records}, &r); err != nil {
		return err
	}
	switch format {
	case "json":
		err = printJSON(cmd.OutOrStdout(), r)
	case "text":
		printSourceReport(cmd.OutOrStdout(), d.Name, r)
	default:
		return &usageError{fmt.Errorf("--output %q: want text or json", format), "source check"}
	}
	if err == nil && r.Rejected > 0 {
		err = errors.New("some records would become dead letters")
	}
	return err
}

func printSourceReport(w io.Writer, name string, r app.SourceReport) {
	fmt.Fprintf(w, "%s: %d records, %d rows, %d without an event\n", name, r.Records, r.Rows, r.Silent)
	for _, kind := range []string{"features", "predictions", "labels"} {
		if n := r.Events[kind]; n > 0 {
			fmt.Fprintf(w, "  %-12s %d\n", kind, n)
		}
	}
	if len(r.Defines) > 0 {
		fmt.Fprintf(w, "  defines      %s\n", strings.Join(r.Defines, ", "))
	}
	if r.Unpaired > 0 {
		fmt.Fprintf(w, "  unpaired     %d: the other half is not in the sample\n", r.Unpaired)
	}
	fmt.Fprintf(w, "  rejected     %d (%.2f%%)\n", r.Rejected, 100*r.RejectRate)
	for _, x := range r.Rejections {
		fmt.Fprintf(w, "    row %d: %s: %s\n", x.Row, x.Reason, x.Detail)
	}
	for i, s := range r.Samples {
		if i == 3 {
			break
		}
		fmt.Fprintf(w, "  %s\n", s)
	}
}

// post sends a body and reads the answer.
func (c *cli) post(cmd *cobra.Command, path string, in, out any) error {
	b, err := c.send(cmd.Context(), http.MethodPost, path, "application/json", in)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	return nil
}
