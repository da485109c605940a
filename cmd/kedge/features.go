package main

import (
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

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/query"
)

// What the server calls the question and its report.
const (
	historyPath   = "/v1/historical-features"
	reportTrailer = "Kedge-Report"
)

// mediaType is the format that a file's name states.
func mediaType(name string) (string, bool) {
	types := map[string]string{".csv": "text/csv", ".parquet": "application/vnd.apache.parquet", ".arrow": "application/vnd.apache.arrow.stream"}
	t, ok := types[strings.ToLower(filepath.Ext(name))]
	return t, ok
}

// historyCall is one call of `kedge features history`.
type historyCall struct {
	entities, out, service, time string
	features, at                 []string
	fullNames, leaky, quiet      bool
	predictions, from, to        string
	withLabels, allEntities      bool
}

func (c *cli) featuresCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "features", Short: "Features: training sets, deletes", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.trainingSetCommand(), c.deleteEntityCommand())
	return cmd
}

func (c *cli) trainingSetCommand() *cobra.Command {
	var h historyCall
	cmd := &cobra.Command{
		Use: "history", Short: "Make a training set: what was known of entities at times in the past", Args: noArgs,
		Long: "Make a training set: the rows of a table of entities and times come back, in order, duplicates kept, with the\n" +
			"features behind that serving would have seen then. CSV, Parquet and Arrow streams are told apart by the file's ending.",
		Example: "  kedge features history --entities labels.csv --service eta -o train.parquet\n" +
			"  kedge features history --from-predictions eta --with-labels -o served.parquet\n" +
			"  kedge features history --all-entities --at 2026-09-01T00:00:00Z --features driver:rating -o all.csv",
		RunE: func(cmd *cobra.Command, _ []string) error { return c.trainingSet(cmd, &h) },
	}
	fs := cmd.Flags()
	fs.StringVar(&h.entities, "entities", "", "table of entities: join keys and a time")
	fs.StringVar(&h.service, "service", "", "feature service")
	fs.StringSliceVar(&h.features, "features", nil, "features, as view:feature")
	fs.StringVarP(&h.out, "output", "o", "", "file to write")
	fs.StringVar(&h.time, "time-column", "", "column that says when (default event_timestamp)")
	fs.BoolVar(&h.fullNames, "full-names", false, "view__feature rather than feature")
	fs.BoolVar(&h.leaky, "ignore-known-at", false, "join on event_time alone, as Feast does: what came late leaks in")
	fs.StringVar(&h.predictions, "from-predictions", "", "model whose stored predictions are the table of entities")
	fs.BoolVar(&h.withLabels, "with-labels", false, "of the predictions, the labelled ones, with label and weight")
	fs.StringVar(&h.from, "from", "", "of the predictions, from this time on")
	fs.StringVar(&h.to, "to", "", "of the predictions, before this time")
	fs.BoolVar(&h.allEntities, "all-entities", false, "every key that the features' views have rows of")
	fs.StringSliceVar(&h.at, "at", nil, "of all entities, the times (default now)")
	fs.BoolVar(&h.quiet, "quiet", false, "no progress bar")
	if err := cmd.MarkFlagRequired("output"); err != nil {
		panic(err) // the flag stands a few lines above
	}
	return cmd
}

// check finds what a call lacks, before anything is sent.
func (h *historyCall) check() (from, to string, err error) {
	n := 0
	for _, given := range []bool{h.entities != "", h.predictions != "", h.allEntities} {
		if given {
			n++
		}
	}
	if n != 1 {
		return "", "", errors.New("want one of --entities FILE, --from-predictions MODEL, --all-entities")
	}
	from, ok := mediaType(h.entities)
	if h.entities != "" && !ok {
		return "", "", fmt.Errorf("--entities %s: want a name that ends in .csv, .parquet or .arrow", h.entities)
	}
	if to, ok = mediaType(h.out); !ok {
		return "", "", fmt.Errorf("-o %s: want a name that ends in .csv, .parquet or .arrow", h.out)
	}
	return from, to, nil
}

func (h *historyCall) query() url.Values {
	q := url.Values{"at": h.at}
	if len(h.features) > 0 {
		q["features"] = h.features
	}
	for name, v := range map[string]string{"feature_service": h.service, "time_column": h.time, "from_predictions": h.predictions, "from": h.from, "to": h.to} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, on := range map[string]bool{"full_feature_names": h.fullNames, "with_labels": h.withLabels, "all_entities": h.allEntities} {
		if on {
			q.Set(name, "true")
		}
	}
	if h.leaky {
		q.Set("known_at", "ignore")
	}
	return q
}

// trainingSet asks for a training set and writes it beside its final name first: a
// file that is there is whole.
func (c *cli) trainingSet(cmd *cobra.Command, h *historyCall) error {
	from, to, err := h.check()
	if err != nil {
		return &usageError{err, "features history"}
	}
	body, total, err := h.open()
	if err != nil {
		return err
	}
	defer body.Close()
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(cmd.ErrOrStderr()), progressbar.OptionSetVisibility(!h.quiet && isTerminal(cmd.ErrOrStderr())),
		progressbar.OptionSetDescription(h.out), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish())
	req, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, strings.TrimSuffix(c.server, "/")+historyPath+"?"+h.query().Encode(), body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", from)
	req.Header.Set("Accept", to)
	res, err := c.do(req)
	if err != nil {
		return c.explain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return answeredError(res)
	}
	if err := saveAnswer(io.TeeReader(res.Body, bar), h.out); err != nil {
		return err
	}
	_ = bar.Finish() // it only draws
	return tellReport(cmd.OutOrStdout(), h.out, res.Trailer.Get(reportTrailer))
}

func (h *historyCall) open() (io.ReadCloser, int64, error) {
	if h.entities == "" {
		return http.NoBody, -1, nil
	}
	f, err := os.Open(h.entities)
	return f, -1, err
}

func answeredError(res *http.Response) error {
	e := &query.Error{Status: res.StatusCode}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && json.Unmarshal(text, e) == nil && e.Message != "" {
		return e
	}
	return fmt.Errorf("the server answered %s: %s", res.Status, text)
}

func saveAnswer(r io.Reader, name string) error {
	part := name + ".part"
	f, err := os.Create(part)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(part, name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(part))
	}
	return nil
}

// tellReport says what the join counted.
func tellReport(w io.Writer, name, text string) error {
	var r struct {
		Rows  int64
		Views map[string]struct {
			NotYetKnown  int64 `json:"not_yet_known"`
			WithoutValue int64 `json:"without_value"`
		}
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("%s is written, but the server's report cannot be read: %w", name, err)
	}
	fmt.Fprintf(w, "%s: %d rows\n", name, r.Rows)
	views := make([]string, 0, len(r.Views))
	for v := range r.Views {
		views = append(views, v)
	}
	slices.Sort(views)
	for _, v := range views {
		fmt.Fprintf(w, "  %s: %d without a value; of %d a newer row was not yet known\n", v, r.Views[v].WithoutValue, r.Views[v].NotYetKnown)
	}
	return nil
}
