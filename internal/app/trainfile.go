package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// TrainFile says how a file becomes an artefact: what its columns are and
// where the artefact goes.
type TrainFile struct {
	Path       string // .csv or .parquet
	Name       string // of the model
	Label      string // column to predict
	Weight     string // column of row weights; empty: none
	Time       string // column of timestamps; empty: rows are Start, Start + Step, …
	Start      string // RFC 3339
	Step       time.Duration
	Drop       []string // columns that are no inputs
	Categories []string // numeric columns that are categories
	Backend    string   // auto, xgboost or linear
	Artifacts  string   // folder of artefacts
}

// TrainWorker is the process in which a native library trains.
func TrainWorker(in io.Reader, out io.Writer) error {
	if status := trainer.WorkerMain(in, out); status != 0 {
		return fmt.Errorf("train-worker ended with status %d", status)
	}
	return nil
}

// job reads the flags; trees is nil when only the linear model is wanted.
func (f *TrainFile) job() (trainer.Job, trainer.Backend, error) {
	start, err := time.Parse(time.RFC3339, f.Start)
	if err != nil {
		return trainer.Job{}, nil, fmt.Errorf("--start: %w", err)
	}
	table := trainer.Table{Label: f.Label, Weight: f.Weight, Time: f.Time, Start: start, Step: f.Step, Drop: f.Drop, Categories: f.Categories}
	job := trainer.Job{
		Name: f.Name, Namespace: "default", Backend: &trainer.Linear{},
		Source: func(context.Context) (*trainer.Matrix, model.Data, error) {
			m, err := readTable(f.Path, table)
			return m, model.Data{Query: "file " + filepath.Base(f.Path)}, err
		},
	}
	switch f.Backend {
	case "linear":
		return job, nil, nil
	case "auto", "xgboost":
		root, err := os.Getwd()
		if err != nil {
			return job, nil, err
		}
		library, err := xgb.Find("", root)
		if err != nil && f.Backend == "auto" {
			return job, nil, nil // the run says that trees were not tried
		}
		return job, &trainer.XGBoost{Library: library}, err
	}
	return job, nil, fmt.Errorf("--backend %q: want auto, xgboost or linear", f.Backend)
}

// memoryShare is three quarters of the machine's memory, in bytes: a few bytes of a
// Parquet file may stand for any number of rows.
func memoryShare() (int64, error) {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("ask how much memory there is: %w", err)
	}
	return int64(info.Totalram) * int64(info.Unit) / 4 * 3, nil
}

func readTable(path string, t trainer.Table) (*trainer.Matrix, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cfg := trainer.DefaultBuilderConfig()
	if cfg.MaxBytes, err = memoryShare(); err != nil {
		return nil, err
	}
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".csv":
		return trainer.ReadCSV(file, t, cfg)
	case ".parquet", ".pq":
		st, err := file.Stat()
		if err != nil {
			return nil, err
		}
		return trainer.ReadParquet(file, st.Size(), t, cfg)
	default:
		return nil, fmt.Errorf("%s: extension %q: want .csv or .parquet", path, ext)
	}
}

// Train trains, writes the artefact and says on out what was chosen, how the
// winner does beside the baseline, and where the artefact is. It returns the
// artefact's digest.
func (f *TrainFile) Train(ctx context.Context, out, progress io.Writer) (string, error) {
	job, trees, err := f.job()
	if err != nil {
		return "", err
	}
	rec := trainer.Record{Log: func(_, line string) { fmt.Fprintln(progress, line) }}
	r, err := trainer.TrainAuto(ctx, "cli", job, trees, rec)
	if err != nil {
		return "", fmt.Errorf("train %s: %w", f.Name, err)
	}
	digest, err := writeArtifact(f.Artifacts, r.Best.Artifact)
	if err != nil {
		return "", err
	}
	for _, c := range r.Choices {
		fmt.Fprintln(out, c)
	}
	printMetrics(out, r)
	for _, w := range slices.Concat(r.Best.Run.Warnings, r.Best.Run.Refused) {
		fmt.Fprintln(out, "warning:", w)
	}
	_, err = fmt.Fprintf(out, "artefact %s in %s\n", digest, f.Artifacts)
	return digest, err
}

// printMetrics sets the winner's test metrics beside the baseline's.
func printMetrics(w io.Writer, r *trainer.AutoResult) {
	best, base := r.Best.Run.Metrics["test"], r.Baseline.Run.Metrics["test"]
	names := make([]string, 0, len(best))
	for name := range best {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(w, "%-24s %12s %12s\n", "on the newest rows", r.Best.Run.Backend, "baseline")
	for _, name := range names {
		fmt.Fprintf(w, "%-24s %12.5g %12.5g\n", name, best[name], base[name])
	}
}
