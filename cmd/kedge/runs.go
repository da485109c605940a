package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/trainer"
)

// jobCall is one call of `kedge train -f`.
type jobCall struct {
	file, why string
	detach    bool
}

// trainJob queues the job that a file describes and follows it to its end.
func (c *cli) trainJob(cmd *cobra.Command, j *jobCall) error {
	docs, err := readPaths([]string{j.file}, cmd.InOrStdin())
	if err != nil {
		return err
	}
	if len(docs) != 1 || docs[0].Kind != trainer.JobKind {
		return fmt.Errorf("%s: want one document of kind %s", j.file, trainer.JobKind)
	}
	spec, err := json.Marshal(docs[0].Spec)
	if err != nil {
		return err
	}
	r, err := c.postRun(cmd.Context(), "/v1/runs", app.RunRequest{Name: docs[0].Name, Spec: spec, Why: j.why})
	if err != nil {
		return err
	}
	if j.detach {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), r.ID)
		return err
	}
	return c.follow(cmd, r)
}

func (c *cli) postRun(ctx context.Context, path string, body any) (trainer.Run, error) {
	b, err := c.send(ctx, http.MethodPost, path, "application/json", body)
	return decodeRun(b, err)
}

func (c *cli) getRun(ctx context.Context, id string) (trainer.Run, error) {
	b, err := c.send(ctx, http.MethodGet, "/v1/runs/"+url.PathEscape(id), "application/json", nil)
	return decodeRun(b, err)
}

func decodeRun(b []byte, err error) (r trainer.Run, _ error) {
	if err != nil {
		return r, err
	}
	var answer app.RunAnswer
	if err := json.Unmarshal(b, &answer); err != nil {
		return r, fmt.Errorf("read the answer: %w", err)
	}
	return r, json.Unmarshal(answer.Run, &r)
}

// followEvery is how often a run that is followed is asked for.
const followEvery = 500 * time.Millisecond

// follow shows a run's progress until it has ended, and then what came of it.
// An interrupted command leaves the run to the server.
func (c *cli) follow(cmd *cobra.Command, r trainer.Run) error {
	show := cmd.ErrOrStderr()
	fmt.Fprintf(show, "run %s is %s\n", r.ID, r.State)
	bar := progressbar.NewOptions(max(r.Params.Rounds, 1), progressbar.OptionSetWriter(show), progressbar.OptionSetVisibility(isTerminal(show)), progressbar.OptionSetDescription(r.Job))
	for !r.State.Final() {
		select {
		case <-cmd.Context().Done():
			return fmt.Errorf("run %s goes on: `kedge train status %s` shows it, `kedge train cancel %s` ends it", r.ID, r.ID, r.ID)
		case <-time.After(followEvery):
		}
		var err error
		if r, err = c.getRun(cmd.Context(), r.ID); err != nil {
			if cmd.Context().Err() != nil {
				continue
			}
			return err
		}
		if r.Params.Rounds > 0 {
			bar.ChangeMax(r.Params.Rounds)
		}
		_ = bar.Set(r.Round) // it only draws
	}
	_ = bar.Finish()
	return printRun(cmd.OutOrStdout(), r)
}

// printRun says what came of a run; one that failed is the command's failure.
func printRun(w io.Writer, r trainer.Run) error {
	rows := 0
	for _, n := range r.Data.Rows {
		rows += n
	}
	fmt.Fprintf(w, "run %s of %s: %s\n", r.ID, r.Job, r.State)
	if rows > 0 {
		fmt.Fprintf(w, "%d rows (train %d, valid %d, test %d), digest %.12s\n", rows, r.Data.Rows["train"], r.Data.Rows["valid"], r.Data.Rows["test"], r.Data.Digest)
	}
	if r.Device.Used != "" {
		fmt.Fprintf(w, "%s on %s, %.1f s, %.1f CPU s\n", r.Backend, r.Device.Used, r.Cost.Wall, r.Cost.CPU)
	}
	for _, text := range r.Choices {
		fmt.Fprintln(w, "chosen:", text)
	}
	printRunMetrics(w, r)
	for _, text := range r.Warnings {
		fmt.Fprintln(w, "warning:", text)
	}
	for _, text := range r.Refused {
		fmt.Fprintln(w, "refused by the gate:", text)
	}
	if r.Artifact != "" {
		fmt.Fprintln(w, "artefact", r.Artifact)
	}
	if r.Version != "" {
		fmt.Fprintf(w, "registered as version %s of %s\n", r.Version, r.Spec.Model)
	}
	switch {
	case r.State == trainer.Failed:
		return errors.New(r.Error)
	case r.State == trainer.Succeeded && !r.Passed:
		return &exitError{3, errors.New("the model did not pass its gate: nothing was registered")}
	}
	return nil
}

func printRunMetrics(w io.Writer, r trainer.Run) {
	test := r.Metrics["test"]
	if len(test) == 0 {
		return
	}
	fmt.Fprintf(w, "%-24s %12s %12s %12s\n", "on the newest rows", "this model", "constant", "live")
	for _, name := range slices.Sorted(maps.Keys(test)) {
		live := "–"
		if v, ok := r.Metrics["live"][name]; ok {
			live = fmt.Sprintf("%.5g", v)
		}
		fmt.Fprintf(w, "%-24s %12.5g %12.5g %12s\n", name, test[name], r.Metrics["baseline"][name], live)
	}
}

// runCommands are those about runs that exist.
func (c *cli) runCommands() []*cobra.Command {
	status := &cobra.Command{Use: "status RUN", Short: "Show a run", Args: exactly(1, "train status"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.getRun(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printRun(cmd.OutOrStdout(), r)
		}}
	cancel := &cobra.Command{Use: "cancel RUN", Short: "End a run between rounds, or take it out of the queue", Args: exactly(1, "train cancel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := c.postRun(cmd.Context(), "/v1/runs/"+url.PathEscape(args[0])+"/cancel", nil)
			return err
		}}
	resume := &cobra.Command{Use: "resume RUN", Short: "Queue a failed or cancelled run again, from its newest checkpoint", Args: exactly(1, "train resume"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.postRun(cmd.Context(), "/v1/runs/"+url.PathEscape(args[0])+"/resume", nil)
			if err != nil {
				return err
			}
			return c.follow(cmd, r)
		}}
	verify := &cobra.Command{Use: "verify RUN", Short: "Read a run's rows again and compare their digest (status 3: they differ)", Args: exactly(1, "train verify"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := c.send(cmd.Context(), http.MethodPost, "/v1/runs/"+url.PathEscape(args[0])+"/verify", "application/json", nil)
			if err != nil {
				return err
			}
			var v trainer.Verification
			if err := json.Unmarshal(b, &v); err != nil {
				return err
			}
			if !v.Same {
				return &exitError{3, fmt.Errorf("the rows of run %s are not what they were: %d now, %d then; digest %.12s, was %.12s; retention may have taken some", v.Run, v.Rows, v.Before, v.Digest, v.Was)}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d rows, digest %s: the same\n", v.Rows, v.Digest)
			return err
		}}
	return []*cobra.Command{status, cancel, resume, verify}
}

// modelCommand is about the registry of models.
func (c *cli) modelCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Models: import, package, aliases, stages of approval", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var why string
	change := func(use, short string, n int, body func(args []string) app.ModelChange) *cobra.Command {
		x := &cobra.Command{Use: use, Short: short, Args: exactly(n, "model"), RunE: func(cmd *cobra.Command, args []string) error {
			in := body(args)
			in.Why = why
			_, err := c.send(cmd.Context(), http.MethodPost, "/v1/registry/models/"+url.PathEscape(args[0]), "application/json", in)
			return err
		}}
		x.Flags().StringVar(&why, "why", "", "reason, kept with the change")
		return x
	}
	cmd.AddCommand(
		modelImport(), c.modelPackage(),
		change("alias MODEL ALIAS VERSION", "Point an alias to a version", 3, func(a []string) app.ModelChange { return app.ModelChange{Alias: a[1], Version: a[2]} }),
		change("unalias MODEL ALIAS", "Remove an alias", 2, func(a []string) app.ModelChange { return app.ModelChange{Alias: a[1]} }),
		change("stage MODEL VERSION STAGE", "Approve a version for candidate, staging, production or archived; --why is kept", 3, func(a []string) app.ModelChange {
			return app.ModelChange{Version: a[1], Stage: a[2]}
		}),
	)
	return cmd
}
