package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/query"
)

// learnCommand writes a Monitor with the constraints that its reference suggests.
func (c *cli) learnCommand() *cobra.Command {
	var f aboutFlags
	var columns []string
	var out string
	cmd := &cobra.Command{
		Use: "learn", Short: "Write a Monitor with the constraints that its reference suggests", Args: cobra.NoArgs,
		Long: "Write a Monitor with the constraints that its reference suggests: what may be missing, ranges, lists of values.\n" +
			"Each was tried on the reference's own windows; those that would have broken one too often stand as a comment. What the\n" +
			"definition says of a column already stays. Read it, change it, kedge apply it.",
		Example: "  kedge monitor learn --model ride_cancel --out monitor.yaml && kedge plan -f monitor.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.named("monitor learn"); err != nil {
				return err
			}
			r, err := f.request("constraints", "monitor learn")
			if err != nil {
				return err
			}
			r.Columns = columns
			frames, err := c.frames(cmd.Context(), r)
			if err != nil {
				return err
			}
			write := func(w io.Writer) error {
				for i := range frames {
					if i > 0 {
						fmt.Fprintln(w, "---")
					}
					if err := c.writeLearnt(cmd, w, &frames[i], &f); err != nil {
						return err
					}
				}
				return nil
			}
			if out == "-" {
				return write(cmd.OutOrStdout())
			}
			return writeFile(out, write)
		},
	}
	cmd.Flags().StringVar(&f.view, "view", "", "feature view")
	cmd.Flags().StringVar(&f.model, "model", "", "model")
	cmd.Flags().StringSliceVar(&columns, "columns", nil, "columns (all that are watched)")
	cmd.Flags().StringVar(&out, "out", "-", "file, - for standard output")
	return cmd
}

// writeLearnt writes one monitor's definition: as it is, with what is new.
func (c *cli) writeLearnt(cmd *cobra.Command, w io.Writer, f *query.Frame, about *aboutFlags) error {
	doc := document{Kind: drift.MonitorKind, Name: about.view + about.model, Spec: map[string]any{}}
	var list app.DefinitionList
	if f.Name == "view/"+about.view || f.Name == "model/"+about.model { // the default monitor has no definition
		doc.Spec[strings.SplitN(f.Name, "/", 2)[0]] = doc.Name
	} else if err := c.get(cmd.Context(), "/v1/definitions?"+url.Values{"kind": {drift.MonitorKind}, "name": {f.Name}}.Encode(), &list); err != nil {
		return err
	} else if len(list.Definitions) != 1 {
		return fmt.Errorf("no Monitor named %q", f.Name)
	} else {
		doc.Name = f.Name
		if err := json.Unmarshal(list.Definitions[0].Spec, &doc.Spec); err != nil {
			return fmt.Errorf("monitor %s: %w", f.Name, err)
		}
	}
	declared, _ := doc.Spec["constraints"].([]any)
	learnt, withheld, err := constraintsOf(f, declaredColumns(declared))
	if err != nil {
		return err
	}
	doc.Spec["constraints"] = append(declared, learnt...)
	b, err := yaml.MarshalWithOptions(doc, yaml.IndentSequence(true))
	if err != nil {
		return err
	}
	for _, n := range f.Notices {
		withheld = append(withheld, n.Text)
	}
	for _, line := range withheld {
		fmt.Fprintln(w, "# "+strings.ReplaceAll(line, "\n", " "))
	}
	_, err = w.Write(b)
	return err
}

func declaredColumns(constraints []any) (names []string) {
	for _, one := range constraints {
		if m, ok := one.(map[string]any); ok {
			names = append(names, fmt.Sprint(m["column"]))
		}
	}
	return names
}

// constraintsOf are the constraints of a frame, one per column but those left
// out, and what was withheld, in words.
func constraintsOf(f *query.Frame, but []string) (out []any, withheld []string, err error) {
	columns, kinds, values := texts(f, "column"), texts(f, "limit"), texts(f, "value")
	var last yaml.MapSlice // of out
	for i, column := range columns {
		if slices.Contains(but, column) {
			continue
		}
		if cellOf[bool](f, "withheld", i) {
			withheld = append(withheld, fmt.Sprintf("%s: no %s: %d of the reference's %d windows broke what the others suggest (%s)",
				column, kinds[i], cellOf[int64](f, "broken", i), cellOf[int64](f, "windows", i), values[i]))
			continue
		}
		if last == nil || last[0].Value != column {
			last = yaml.MapSlice{{Key: "column", Value: column}}
			out = append(out, last)
		}
		var value any
		if kinds[i] == string(drift.DomainLimit) {
			var list []string
			if err := json.Unmarshal([]byte(values[i]), &list); err != nil {
				return nil, nil, fmt.Errorf("values of %s: %w", column, err)
			}
			value = list
		} else if value, err = strconv.ParseFloat(values[i], 64); err != nil {
			return nil, nil, fmt.Errorf("%s of %s: %w", kinds[i], column, err)
		}
		last = append(last, yaml.MapItem{Key: kinds[i], Value: value})
		out[len(out)-1] = last
	}
	return out, withheld, nil
}

// cellOf is a value of a frame; the zero value where it has none of that type.
func cellOf[T any](f *query.Frame, column string, row int) (zero T) {
	for _, c := range f.Columns {
		if v, ok := c.Values.([]T); ok && c.Name == column && row < len(v) {
			return v[row]
		}
	}
	return zero
}
