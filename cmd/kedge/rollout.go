package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

// moment is one state of a deployment, as the server tells it.
type moment struct {
	At     string `json:"at"`
	Action string `json:"action"`
	Who    string `json:"who"`
	Why    string `json:"why"`
	Spec   struct {
		Champion string   `json:"champion"`
		Shadows  []string `json:"shadows"`
		Canary   *struct {
			Version string  `json:"version"`
			Weight  float64 `json:"weight"`
		} `json:"canary"`
		Experiment *struct {
			Name string `json:"name"`
		} `json:"experiment"`
	} `json:"spec"`
}

// live is the routing in a few words.
func (m *moment) live() string {
	s := "champion " + m.Spec.Champion
	if c := m.Spec.Canary; c != nil {
		s += fmt.Sprintf(", canary %s at %.3g%%", c.Version, 100*c.Weight)
	}
	if e := m.Spec.Experiment; e != nil {
		s += ", experiment " + e.Name
	}
	if len(m.Spec.Shadows) > 0 {
		s += ", shadows " + strings.Join(m.Spec.Shadows, " ")
	}
	return s
}

func (c *cli) rolloutCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Show and change which version of a model is live", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.rolloutStatus(), c.rolloutHistory(), c.rolloutChange("promote", "Make the canary, or a version, the champion"), c.rolloutChange("rollback", "End the canary or experiment, or go back to the champion before"), c.rolloutRehearse())
	return cmd
}

func (c *cli) rolloutStatus() *cobra.Command {
	var loss string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status MODEL", Short: "What is live, how the arms do, and what the guard-rails say", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var raw json.RawMessage
			if err := c.get(cmd.Context(), "/v1/rollouts/"+url.PathEscape(args[0])+"?loss="+url.QueryEscape(loss), &raw); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), raw)
			}
			return printRollout(cmd.OutOrStdout(), raw)
		},
	}
	cmd.Flags().StringVar(&loss, "loss", "", "error, brier, log_loss, absolute_error or squared_error; default: the guard-rail's")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printRollout(w io.Writer, raw json.RawMessage) error {
	var r app.Rollout
	var now struct {
		Now moment `json:"now"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &now); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s: %s since %s\n", r.Model, now.Now.live(), now.Now.At)
	if d := r.Readout; d != nil {
		fmt.Fprintf(w, "\n%s, since %s, loss %s\n", d.Name, d.Since.Format("2006-01-02T15:04:05Z07:00"), orDash(d.Loss))
		tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(tw, "variant\tversion\tshare\tunits\tlabels\tloss\tdifference")
		for _, a := range d.Arms {
			effect := "control"
			if !a.Control && a.Low > -1e300 {
				effect = fmt.Sprintf("%+.4g [%+.4g, %+.4g]", a.Effect, a.Low, a.High)
			} else if !a.Control {
				effect = "too few labels"
			}
			fmt.Fprintf(tw, "%s\t%s\t%.3g%%\t%d\t%d\t%.4g\t%s\n", a.Variant, a.Version, 100*a.Share, a.Units, a.Labelled, a.Loss, effect)
		}
		tw.Flush()
		if d.Mismatch {
			fmt.Fprintf(w, "SAMPLE RATIO MISMATCH (evidence %.3g:1): the arms did not get their shares; find out why before you believe the rest\n", d.Evidence)
		}
	}
	if j := r.Judgement; j != nil {
		fmt.Fprintf(w, "\nguard-rails: %s\n", j.Decision)
		for _, f := range j.Findings {
			fmt.Fprintf(w, "  %-9s %-9s %s\n", f.Rule, f.Decision, f.Sentence)
		}
		if j.Awaits {
			fmt.Fprintf(w, "  waits for approval: kedge rollout promote %s\n", r.Model)
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (c *cli) rolloutHistory() *cobra.Command {
	var at string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "history MODEL", Short: "Every change of what was live: when, who and why", Args: cobra.ExactArgs(1),
		Example: "  kedge rollout history elec\n  kedge rollout history elec --at 2026-11-01T10:00:00Z",
		RunE: func(cmd *cobra.Command, args []string) error {
			var out struct {
				Moments []moment `json:"moments"`
			}
			path := "/v1/rollouts/" + url.PathEscape(args[0]) + "/history"
			if at != "" {
				path += "?at=" + url.QueryEscape(at)
			}
			var raw json.RawMessage
			if err := c.get(cmd.Context(), path, &raw); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), raw)
			}
			if err := json.Unmarshal(raw, &out); err != nil {
				return err
			}
			printMoments(cmd.OutOrStdout(), out.Moments)
			return nil
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "what was live at this time, RFC 3339")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, evidence included")
	return cmd
}

// printMoments prints a line per change, oldest first.
func printMoments(w io.Writer, moments []moment) {
	for _, m := range moments {
		why, _, _ := strings.Cut(m.Why, "\n")
		fmt.Fprintf(w, "%s  %-17s %s  (%s) %s\n", m.At, m.Action, m.live(), m.Who, why)
	}
}

func (c *cli) rolloutChange(action, short string) *cobra.Command {
	var why, version string
	cmd := &cobra.Command{
		Use: action + " MODEL", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := c.send(cmd.Context(), http.MethodPost, "/v1/rollouts/"+url.PathEscape(args[0]), "application/json",
				app.RolloutChange{Action: action, Version: version, Why: why})
			if err != nil {
				return err
			}
			var m moment
			if err := json.Unmarshal(b, &m); err != nil {
				return fmt.Errorf("read the answer of %s: %w", c.server, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], m.live())
			return nil
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "reason, kept with the change")
	if action == "promote" {
		cmd.Flags().StringVar(&version, "version", "", "the version to promote; default: the canary")
	}
	return cmd
}
