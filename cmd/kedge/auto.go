package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/trainer"
)

// autoCall is one call of `kedge train --auto`: which rows, and nothing else.
type autoCall struct {
	on, deploy     bool
	name, label    string
	predictions    string
	features, drop []string
	from, to, why  string
}

// trainAuto queues a job whose every choice is left to the server.
func (c *cli) trainAuto(cmd *cobra.Command, a *autoCall, detach bool) error {
	spec, err := a.spec(c, cmd)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	r, err := c.postRun(cmd.Context(), "/v1/runs", app.RunRequest{Name: a.name, Spec: raw, Why: a.why})
	if err != nil {
		return err
	}
	if detach {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), r.ID)
		return err
	}
	return c.follow(cmd, r)
}

// spec is the job: the gate wants a model that beats always answering the
// average (as every gate does) and the live model, on rows that it has not seen.
func (a *autoCall) spec(c *cli, cmd *cobra.Command) (*trainer.JobSpec, error) {
	if a.name == "" || (a.label == "") == (a.predictions == "") {
		return nil, &usageError{errors.New("--auto wants --name, and --label VIEW:COLUMN or --predictions MODEL"), "train"}
	}
	same := 0.0
	spec := &trainer.JobSpec{Backend: "auto", Gate: trainer.Gate{BeatLive: &same}, Register: &trainer.RegisterSpec{Alias: "challenger"}}
	if a.deploy {
		spec.Register.Deploy = "shadow"
	}
	spec.Data = trainer.DataSpec{Predictions: a.predictions, Features: a.features, Drop: a.drop}
	for text, at := range map[string]*time.Time{a.from: &spec.Data.From, a.to: &spec.Data.To} {
		var err error
		if text != "" {
			if *at, err = time.Parse(time.RFC3339, text); err != nil {
				return nil, &usageError{fmt.Errorf("--from, --to: %w", err), "train"}
			}
		}
	}
	if a.label == "" {
		return spec, nil
	}
	view, column, ok := strings.Cut(a.label, ":")
	if !ok {
		return nil, &usageError{fmt.Errorf("--label %q: want VIEW:COLUMN", a.label), "train"}
	}
	spec.Data.Labels = &trainer.LabelSpec{View: view, Column: column}
	if len(a.features) > 0 {
		return spec, nil
	}
	spec.Data.Drop = nil
	others, err := c.otherColumns(cmd, view, column, a.drop)
	spec.Data.Features = others
	return spec, err
}

// otherColumns are the columns of a view that may be inputs.
func (c *cli) otherColumns(cmd *cobra.Command, view, label string, drop []string) ([]string, error) {
	var list app.DefinitionList
	if err := c.get(cmd.Context(), "/v1/definitions?"+url.Values{"kind": {"FeatureView"}, "name": {view}}.Encode(), &list); err != nil {
		return nil, err
	}
	if len(list.Definitions) == 0 {
		return nil, fmt.Errorf("no view named %q: `kedge get FeatureView` lists them", view)
	}
	var spec struct {
		Columns []struct {
			Name string `json:"name"`
		} `json:"columns"`
	}
	if err := json.Unmarshal(list.Definitions[0].Spec, &spec); err != nil {
		return nil, fmt.Errorf("read view %s: %w", view, err)
	}
	var out []string
	for _, col := range spec.Columns {
		if col.Name != label && !slices.Contains(drop, col.Name) {
			out = append(out, view+":"+col.Name)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("view %s has no column beside %s: name --features", view, label)
	}
	return out, nil
}
