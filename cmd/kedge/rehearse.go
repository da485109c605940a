package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/query"
)

// rehearseFlags say what is rehearsed with.
type rehearseFlags struct {
	model, label, then, truth, id, backend, artifacts string
	drop, categories, less                            []string
	train, late, rate                                 int
}

func (c *cli) rolloutRehearse() *cobra.Command {
	var f rehearseFlags
	cmd := &cobra.Command{
		Use: "rehearse [FILE]", Short: "Play a rollout with rows of the past: a worse canary, then a better one", Args: cobra.MaximumNArgs(1),
		Long: "Train three models from the older rows of a file: a champion that lacks some columns (--less), a canary that learnt\n" +
			"from swapped labels, and a better one that has all columns. Deploy the champion with one canary, then with the other,\n" +
			"ask the server for predictions of the newer rows in time order, and tell it each outcome --late rows later. The\n" +
			"guard-rail rolls the first canary back and promotes the second; the history says so, with the evidence.\n\n" +
			"Rows come from the file's rest, or from --then; labels that stand in a file of their own come from --truth, by --id.\n" +
			"Without a file, the demo stream's rides are used. The artefacts go where the server reads them (--artifacts).",
		Example: "  kedge rollout rehearse\n  kedge rollout rehearse elec.csv --model elec --label class --less nswprice,vicprice\n" +
			"  kedge rollout rehearse people2015.pq --then people2016.pq --truth employed2016.pq --id id --model employment --label employed --drop id,year --less AGEP",
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &rehearsal{c: c, f: f, out: cmd.OutOrStdout()}
			if err := r.read(args); err != nil {
				return err
			}
			return r.run(cmd.Context())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.model, "model", "rehearsal", "name of the model; it must have no deployment yet")
	fs.StringVar(&f.label, "label", "", "column with the truth, of two classes")
	fs.StringVar(&f.then, "then", "", "file with the newer rows; default: the rest of FILE")
	fs.StringVar(&f.truth, "truth", "", "file with the labels of --then")
	fs.StringVar(&f.id, "id", "id", "column by which --truth is joined")
	fs.StringSliceVar(&f.drop, "drop", nil, "columns that are no inputs")
	fs.StringSliceVar(&f.categories, "categories", nil, "numeric columns that are categories")
	fs.StringSliceVar(&f.less, "less", nil, "columns that the champion lacks and the better canary has")
	fs.StringVar(&f.backend, "backend", "linear", "auto, xgboost or linear")
	fs.StringVar(&f.artifacts, "artifacts", filepath.Join("kedge-data", "artifacts"), "folder of artefacts, the server's")
	fs.IntVar(&f.train, "train", 6000, "rows to train on")
	fs.IntVar(&f.late, "late", 100, "rows between a prediction and its outcome")
	fs.IntVar(&f.rate, "rate", 500, "predictions a second, at most")
	return cmd
}

// rehearsal is one walk from three models to two decisions.
type rehearsal struct {
	c       *cli
	f       rehearseFlags
	out     io.Writer
	past    *table // to train on
	future  *table // to replay
	label   int    // column of future
	numbers []bool // columns of future whose values are numbers to the model
	late    []string
	asked   int
	refused int
	told    int
}

// read gets the rows together.
func (r *rehearsal) read(args []string) error {
	var err error
	switch {
	case len(args) == 0:
		r.past = &table{}
		r.past.header, r.past.rows = app.DemoTable(4 * r.f.train)
		r.f.label = "cancelled"
		if r.f.less == nil {
			r.f.less = []string{"wait_minutes"}
		}
	case r.f.label == "" || len(r.f.less) == 0:
		return &usageError{errors.New("want --label and --less with a file"), "rollout rehearse"}
	default:
		if r.past, err = readTable(args[0]); err != nil {
			return err
		}
	}
	if r.f.train <= 0 || r.f.rate <= 0 || r.f.late < 0 {
		return &usageError{errors.New("--train and --rate want more than 0, --late no less"), "rollout rehearse"}
	}
	n := min(r.f.train, len(r.past.rows))
	r.future = &table{r.past.header, r.past.rows[n:]}
	r.past = &table{r.past.header, r.past.rows[:n]}
	if r.f.then != "" {
		if err := r.readThen(); err != nil {
			return err
		}
	}
	if r.label, err = r.future.column(r.f.label); err != nil {
		return err
	}
	return r.types()
}

func (r *rehearsal) readThen() (err error) {
	if r.future, err = readTable(r.f.then); err != nil || r.f.truth == "" {
		return err
	}
	truth, err := readTable(r.f.truth)
	if err != nil {
		return err
	}
	return r.future.join(truth, r.f.id, r.f.label)
}

// types says which columns the models take for numbers: those that were
// numbers in what they learnt from.
func (r *rehearsal) types() error {
	learnt := r.past.numeric()
	r.numbers = make([]bool, len(r.future.header))
	for i, name := range r.future.header {
		if slices.Contains(r.f.drop, name) {
			continue
		}
		at, err := r.past.column(name)
		if err != nil {
			return fmt.Errorf("--then: %w", err)
		}
		r.numbers[i] = learnt[at]
	}
	return nil
}

// Versions of a rehearsal.
const (
	rehearsedChampion = "champion"
	rehearsedSwapped  = "swapped"
	rehearsedBetter   = "better"
)

func (r *rehearsal) run(ctx context.Context) error {
	digests, err := r.train(ctx)
	if err != nil {
		return err
	}
	for _, act := range []struct{ canary, why, action string }{
		{rehearsedSwapped, "rehearsal: a canary that learnt from swapped labels", "rolled back"},
		{rehearsedBetter, "rehearsal: a canary that knows more", "promoted"},
	} {
		if err := r.deploy(ctx, digests, act.canary, act.why); err != nil {
			return err
		}
		if err := r.until(ctx, act.action); err != nil {
			return err
		}
	}
	return r.history(ctx)
}

// train makes the three models and returns their artefacts by version.
func (r *rehearsal) train(ctx context.Context) (map[string]string, error) {
	dir, err := os.MkdirTemp("", "kedge-rehearsal-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	label, err := r.past.column(r.f.label)
	if err != nil {
		return nil, err
	}
	swapped, err := r.past.swapped(label)
	if err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for _, v := range []struct {
		version string
		rows    *table
		less    []string
		about   string
	}{
		{rehearsedChampion, r.past, r.f.less, "does not know " + strings.Join(r.f.less, ", ")},
		{rehearsedSwapped, swapped, nil, "learnt from swapped labels"},
		{rehearsedBetter, r.past, nil, "knows every column"},
	} {
		file := filepath.Join(dir, v.version+".csv")
		if err := v.rows.write(file); err != nil {
			return nil, err
		}
		job := app.TrainFile{Path: file, Name: r.f.model, Label: r.f.label, Start: "1970-01-01T00:00:00Z", Step: time.Minute,
			Drop: append(slices.Clone(r.f.drop), v.less...), Categories: without(r.f.categories, v.less), Backend: r.f.backend, Artifacts: r.f.artifacts}
		digest, err := job.Train(ctx, io.Discard, io.Discard)
		if err != nil {
			return nil, err
		}
		digests[v.version] = digest
		fmt.Fprintf(r.out, "trained   %-9s %.12s  %s\n", v.version, digest, v.about)
	}
	return digests, nil
}

func without(list, gone []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(gone, s) })
}

// deploy puts a canary beside the champion.
func (r *rehearsal) deploy(ctx context.Context, digests map[string]string, canary, why string) error {
	var versions []map[string]string
	for _, v := range []string{rehearsedChampion, rehearsedSwapped, rehearsedBetter} {
		versions = append(versions, map[string]string{"version": v, "artifact": digests[v]})
	}
	spec := map[string]any{
		"versions": versions, "champion": rehearsedChampion,
		"canary": map[string]any{"version": canary, "weight": 0.5},
		"guardrails": map[string]any{
			"every": "1s", "errors": map[string]any{"rate": 0.01}, "latency": map[string]any{"p99_ms": 10000},
			"labels": map[string]any{"loss": "error", "min_labels": 100},
		},
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	def := app.Definition{Kind: "Deployment", Name: r.f.model, Why: why, Spec: raw}
	if canary != rehearsedSwapped { // the first one must meet no deployment: a rehearsal takes no model over
		plan, err := r.c.plan(ctx, []document{{Kind: def.Kind, Name: def.Name, Spec: spec}}, false)
		if err != nil {
			return err
		}
		def.Version = plan.Changes[0].Version
	}
	if _, err := r.c.send(ctx, http.MethodPost, "/v1/definitions", "application/json", def); err != nil {
		return fmt.Errorf("deploy %s: %w", r.f.model, err)
	}
	fmt.Fprintf(r.out, "deployed  champion with canary %s at 50%%\n", canary)
	return r.ready(ctx)
}

// patience bounds every wait of a rehearsal.
const patience = time.Minute

// ready waits until the model answers.
func (r *rehearsal) ready(ctx context.Context) error {
	deadline := time.Now().Add(patience)
	for {
		_, err := r.c.send(ctx, http.MethodGet, "/v2/models/"+url.PathEscape(r.f.model)+"/ready", "application/json", nil)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// until replays until the newest change of the deployment is the one that is
// waited for. When all rows are asked, their outcomes are told and waited for.
func (r *rehearsal) until(ctx context.Context, action string) error {
	var deadline time.Time // once the rows are over
	for {
		now, err := r.newest(ctx)
		if err != nil {
			return err
		}
		if now.Action == action {
			why, _, _ := strings.Cut(now.Why, "\n")
			fmt.Fprintf(r.out, "%-9s after %d predictions, %d outcomes (%d rows refused): %s\n", action, r.asked, r.told, r.refused, why)
			return nil
		}
		if len(r.future.rows) > 0 {
			err = r.step(ctx, min(100, len(r.future.rows)))
		} else if deadline.IsZero() {
			deadline = time.Now().Add(patience)
			err = r.tell(ctx, len(r.late))
		} else if time.Now().After(deadline) {
			err = fmt.Errorf("the rows are over, and %s is not %s: `kedge rollout status %s` says what the guard-rail thinks", r.f.model, action, r.f.model)
		} else {
			err = sleep(ctx, 200*time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
}

func (r *rehearsal) moments(ctx context.Context) ([]moment, error) {
	var h struct {
		Moments []moment `json:"moments"`
	}
	err := r.c.get(ctx, "/v1/rollouts/"+url.PathEscape(r.f.model)+"/history", &h)
	return h.Moments, err
}

func (r *rehearsal) newest(ctx context.Context) (moment, error) {
	h, err := r.moments(ctx)
	if err != nil || len(h) == 0 {
		return moment{}, err
	}
	return h[len(h)-1], nil
}

// step asks for the next n rows, no faster than --rate, and tells the outcomes
// that became known meanwhile.
func (r *rehearsal) step(ctx context.Context, n int) error {
	due := time.Now().Add(time.Duration(n) * time.Second / time.Duration(r.f.rate))
	for _, row := range r.future.rows[:n] {
		if err := r.ask(ctx, row); err != nil {
			return err
		}
	}
	r.future.rows = r.future.rows[n:]
	if err := r.tell(ctx, len(r.late)-r.f.late); err != nil {
		return err
	}
	return sleep(ctx, max(0, time.Until(due)))
}

// ask gets one prediction. A row that the model refuses, because it has a
// category that was never met, is counted.
func (r *rehearsal) ask(ctx context.Context, row []string) error {
	body := []byte(`{"data":{`)
	for i, name := range r.future.header {
		if i == r.label || slices.Contains(r.f.drop, name) {
			continue
		}
		if body[len(body)-1] != '{' {
			body = append(body, ',')
		}
		body = append(event.AppendString(body, name), ':')
		body = append(body, literal(row[i], r.numbers[i])...)
	}
	b, err := r.c.send(ctx, http.MethodPost, "/v1/predict/"+url.PathEscape(r.f.model), "application/json", json.RawMessage(append(body, "}}"...)))
	r.asked++
	var refused *query.Error
	if errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
		r.refused++
		if r.refused == 1 {
			fmt.Fprintf(r.out, "refused   %v\n", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	var a struct {
		Predictions []struct {
			ID string `json:"prediction_id"`
		} `json:"predictions"`
	}
	if err := json.Unmarshal(b, &a); err != nil || len(a.Predictions) != 1 {
		return fmt.Errorf("read the prediction %.200s: %w", b, err)
	}
	line := event.AppendString([]byte(`{"model":`), r.f.model)
	line = event.AppendString(append(line, `,"prediction_id":`...), a.Predictions[0].ID)
	line = append(append(line, `,"label":`...), literal(row[r.label], r.numbers[r.label])...)
	r.late = append(r.late, string(append(line, '}')))
	return nil
}

// literal is a value in JSON; an empty one is missing.
func literal(text string, number bool) string {
	switch {
	case text == "":
		return "null"
	case number:
		return text
	}
	return string(event.AppendString(nil, text))
}

// tell sends the n oldest outcomes.
func (r *rehearsal) tell(ctx context.Context, n int) error {
	if n <= 0 {
		return nil
	}
	_, err := r.c.send(ctx, http.MethodPost, "/v1/outcome", "application/json", json.RawMessage("["+strings.Join(r.late[:n], ",")+"]"))
	r.late, r.told = r.late[n:], r.told+n
	return err
}

func (r *rehearsal) history(ctx context.Context) error {
	h, err := r.moments(ctx)
	if err == nil {
		fmt.Fprintln(r.out)
		printMoments(r.out, h)
	}
	return err
}
