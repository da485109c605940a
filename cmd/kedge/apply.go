package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/app"
)

// applyFlags say which files are meant, and how.
type applyFlags struct {
	files    []string
	why      string
	revision string
	prune    bool
}

func (f *applyFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.files, "file", "f", nil, "YAML file, folder of such, or - for standard input; may be given several times")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "delete what was applied from files before and is in none of these")
	_ = cmd.MarkFlagRequired("file") // the flag exists
}

func (c *cli) applyCommand() *cobra.Command {
	f := &applyFlags{}
	cmd := &cobra.Command{
		Use: "apply -f PATH", Short: "Make definitions as files have them", Args: cobra.NoArgs,
		Long: "Make definitions as files have them. All are checked first: when one is refused, none is applied.\nA document that states a version replaces that version alone: kedge get prints it, and a definition that has\nchanged since is not overwritten. One that states none replaces what is live, which suits files in Git.",
		RunE: func(cmd *cobra.Command, _ []string) error { return c.apply(cmd, f) },
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.why, "why", "", "reason, kept with the change")
	cmd.Flags().StringVar(&f.revision, "revision", "", "commit of the files, kept with the change (default: that of the Git folder they are in)")
	return cmd
}

func (c *cli) planCommand() *cobra.Command {
	f := &applyFlags{}
	format := ""
	cmd := &cobra.Command{
		Use: "plan -f PATH", Short: "Show what applying files would do", Args: cobra.NoArgs,
		Long: "Show what applying files would do, and of each edit whether anything is rebuilt, refused or lost.\nThe exit status is 0 when nothing would change, 3 when something would, 1 when something is refused.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			docs, err := readPaths(f.files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			plan, err := c.plan(cmd.Context(), docs, f.prune)
			if err != nil {
				return err
			}
			if err := printPlan(cmd.OutOrStdout(), plan, format); err != nil {
				return err
			}
			return planStatus(plan)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func planStatus(p app.Plan) error {
	if p.Refused > 0 {
		return refusedError(p)
	}
	for _, ch := range p.Changes {
		if ch.Action != "unchanged" {
			return &exitError{3, errors.New("applying would change this")}
		}
	}
	return nil
}

func refusedError(p app.Plan) error {
	var errs []error
	for _, ch := range p.Changes {
		if ch.Refused != "" {
			errs = append(errs, fmt.Errorf("%s %s: %s", ch.Kind, ch.Name, ch.Refused))
		}
	}
	return errors.Join(errs...)
}

func (c *cli) plan(ctx context.Context, docs []document, prune bool) (app.Plan, error) {
	in := app.PlanRequest{Prune: prune}
	for _, d := range docs {
		spec, err := json.Marshal(d.Spec)
		if err != nil {
			return app.Plan{}, fmt.Errorf("%s %s: %w", d.Kind, d.Name, err)
		}
		in.Definitions = append(in.Definitions, app.Definition{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Version: d.Version, Spec: spec})
	}
	b, err := c.send(ctx, http.MethodPost, "/v1/definitions/plan", "application/json", in)
	if err != nil {
		return app.Plan{}, err
	}
	var plan app.Plan
	if err := json.Unmarshal(b, &plan); err != nil {
		return plan, fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	return plan, nil
}

func printPlan(w io.Writer, p app.Plan, format string) error {
	switch format {
	case "json":
		return printJSON(w, p)
	case "text":
	default:
		return &usageError{fmt.Errorf("--output %q: want text or json", format), "plan"}
	}
	for _, ch := range p.Changes {
		fmt.Fprintf(w, "%s %s: %s\n", ch.Kind, ch.Name, ch.Action)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, e := range ch.Edits {
			fmt.Fprintf(t, "    %s\t%s\t→ %s\t%s\n", e.Path, cut(e.Was), cut(e.Now), effectText(e.Effect))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if ch.Cost != nil {
			fmt.Fprintf(w, "    cost: %v\n", ch.Cost)
			if ch.Cost.Beyond != "" {
				fmt.Fprintf(w, "    warning: %s\n", ch.Cost.Beyond)
			}
		}
		if r := ch.Removes; r != nil && r.Rows > 0 {
			fmt.Fprintf(w, "    retention: %d rows, appended before %s, are removed\n", r.Rows, r.Before.Format(time.DateTime))
		}
		if m := ch.Moves; m != nil && m.Rows > 0 {
			fmt.Fprintf(w, "    retention: %d rows (%d bytes), appended before %s, move to %s\n", m.Rows, m.Bytes, m.Before.Format(time.DateTime), m.Volume)
		}
		if ch.Refused != "" {
			fmt.Fprintf(w, "    refused: %s\n", ch.Refused)
		}
	}
	return nil
}

func cut(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}

func effectText(e event.Effect) string {
	return map[event.Effect]string{
		event.EffectNone: "shown only, nothing is rebuilt", event.EffectRead: "takes effect at once, stored rows stay",
		event.EffectAlias: "alias: events may use the other name", event.EffectColumn: "new column: earlier rows have null",
		event.EffectWidening: "widening: stored values become Float64", event.EffectRetire: "retired: events are refused, stored rows stay",
		event.EffectRetention: "retention: older rows are removed",
		event.EffectOverflow:  "values go to the overflow column from now on", event.EffectSignature: "another input table for these versions",
		event.EffectVersion: "a new version: stored rows are converted", event.EffectRefused: "refused",
	}[e]
}

func (c *cli) apply(cmd *cobra.Command, f *applyFlags) error {
	docs, err := readPaths(f.files, cmd.InOrStdin())
	if err != nil {
		return err
	}
	if len(docs) == 0 && !f.prune {
		return fmt.Errorf("no documents in %s", strings.Join(f.files, ", "))
	}
	plan, err := c.plan(cmd.Context(), docs, f.prune)
	if err != nil {
		return err
	}
	if plan.Refused > 0 {
		return refusedError(plan)
	}
	revision := f.revision
	if revision == "" {
		revision = revisionOf(cmd.Context(), f.files[0])
	}
	for i, ch := range plan.Changes {
		if i < len(docs) {
			err = c.applyOne(cmd, docs[i], ch, f.why, revision)
		} else {
			err = c.deleteOne(cmd, ch.Kind, ch.Name, ch.Version, "pruned: in no file any more")
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", ch.Kind, ch.Name, err)
		}
	}
	return nil
}

// revisionOf is the commit of the Git folder that a path lies in, or "files"
// where there is none: a definition that came from files is known as such.
func revisionOf(ctx context.Context, path string) string {
	const none = "files"
	if path == "-" {
		return none
	}
	dir := path
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		dir = filepath.Dir(path)
	}
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		return none
	}
	return strings.TrimSpace(string(out))
}

// applyOne writes what the plan says changes.
func (c *cli) applyOne(cmd *cobra.Command, d document, ch app.PlannedChange, why, revision string) error {
	if ch.Action == "unchanged" {
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s: version %d, unchanged\n", ch.Kind, ch.Name, ch.Version)
		return nil
	}
	spec, err := json.Marshal(d.Spec)
	if err != nil {
		return err
	}
	expect := d.Version
	if expect == 0 {
		expect = ch.Version
	}
	b, err := c.send(cmd.Context(), http.MethodPost, "/v1/definitions", "application/json",
		app.Definition{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Version: expect, Why: why, Revision: revision, Spec: spec})
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

func (c *cli) deleteCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "delete KIND NAME", Short: "Delete a definition; stored rows stay until their retention ends", Args: cobra.ExactArgs(2),
		Long: "Delete a definition. Stored rows stay until their retention ends. A view or model that events inferred by\nmistake is undone in this way: stop the events first, or it is inferred again.",
		RunE: func(cmd *cobra.Command, args []string) error { return c.deleteOne(cmd, args[0], args[1], 0, why) },
	}
	cmd.Flags().StringVar(&why, "why", "", "reason, kept with the change")
	return cmd
}

func (c *cli) deleteOne(cmd *cobra.Command, kind, name string, version uint64, why string) error {
	q := url.Values{"kind": {kind}, "name": {name}, "version": {strconv.FormatUint(version, 10)}, "why": {why}}
	if _, err := c.send(cmd.Context(), http.MethodDelete, "/v1/definitions?"+q.Encode(), "application/json", nil); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s: deleted\n", kind, name)
	return nil
}

func (c *cli) historyCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "history KIND NAME", Short: "Show every version of a definition: when, who, why", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var list app.DefinitionList
			if err := c.get(cmd.Context(), "/v1/definitions/history?"+url.Values{"kind": {args[0]}, "name": {args[1]}}.Encode(), &list); err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printHistory(cmd.OutOrStdout(), list)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printHistory(w io.Writer, list app.DefinitionList) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tCHANGED\tWHO\tREVISION\tWHY\tEDITS")
	for i, d := range list.Definitions {
		var edits []string
		switch {
		case d.Deleted:
			edits = []string{"deleted"}
		case i == 0 || list.Definitions[i-1].Deleted:
			edits = []string{"created"}
		default:
			found, err := event.CompareSpecs(d.Kind, list.Definitions[i-1].Spec, d.Spec)
			if err != nil {
				return err
			}
			for _, e := range found {
				edits = append(edits, e.Path)
			}
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%.10s\t%s\t%s\n", d.Version, d.Changed.UTC().Format(time.RFC3339), d.Who, d.Revision, d.Why, cut(strings.Join(edits, ", ")))
	}
	return t.Flush()
}

// readPaths reads files of documents and folders of such. What stands in two of
// the files is an error.
func readPaths(paths []string, stdin io.Reader) ([]document, error) {
	var files []string
	for _, p := range paths {
		under, err := filesUnder(p)
		if err != nil {
			return nil, err
		}
		files = append(files, under...)
	}
	var out []document
	seen := map[[2]string]string{}
	for _, f := range files {
		docs, err := readDocuments(f, stdin)
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			if other, twice := seen[[2]string{d.Kind, d.Name}]; twice && len(files) > 1 {
				return nil, fmt.Errorf("%s %s stands in %s and in %s", d.Kind, d.Name, other, f)
			}
			seen[[2]string{d.Kind, d.Name}] = f
		}
		out = append(out, docs...)
	}
	return out, nil
}

// filesUnder are all .yaml and .yml files of a folder and the folders in it,
// ordered by name, or the one file that a path names.
func filesUnder(path string) ([]string, error) {
	if st, err := os.Stat(path); path == "-" || err != nil || !st.IsDir() {
		return []string{path}, nil // reading it says what is wrong
	}
	var files []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && p != path && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if ext := filepath.Ext(p); err == nil && !d.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, p)
		}
		return err
	})
	slices.Sort(files)
	return files, err
}
