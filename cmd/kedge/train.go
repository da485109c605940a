package main

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

// trainCommand trains from a file, without a server: what comes of it is an
// artefact that any kedge can serve.
func (c *cli) trainCommand() *cobra.Command {
	var f app.TrainFile
	cmd := &cobra.Command{
		Use: "train FILE", Short: "Train a model from a CSV or Parquet file and leave its artefact", Args: exactly(1, "train"),
		Long: "Train a model from a CSV or Parquet file. Task, metric and budget follow from the rows; a linear model is the\n" +
			"stated baseline; the winner is judged on the newest rows, which neither has seen. The artefact holds the model,\n" +
			"its signature with the reference of every column, golden rows and a card; a Deployment serves it.",
		Example: "  kedge train elec.csv --name elec --label class --start 1996-05-07T00:00:00Z --step 30m\n  kedge train trips.parquet --name fare --label fare --time picked_up --backend linear",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Path = args[0]
			return f.Train(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.Name, "name", "", "model name")
	fs.StringVar(&f.Label, "label", "", "column to predict")
	fs.StringVar(&f.Weight, "weight", "", "column of row weights")
	fs.StringVar(&f.Time, "time", "", "column of timestamps; without one, rows are --start, --start + --step, …")
	fs.StringVar(&f.Start, "start", "1970-01-01T00:00:00Z", "time of the first row")
	fs.DurationVar(&f.Step, "step", time.Minute, "time from one row to the next")
	fs.StringSliceVar(&f.Drop, "drop", nil, "columns that are no inputs")
	fs.StringSliceVar(&f.Categories, "categories", nil, "numeric columns that are categories")
	fs.StringVar(&f.Backend, "backend", "auto", "auto, xgboost or linear")
	fs.StringVar(&f.Artifacts, "artifacts", filepath.Join("kedge-data", "artifacts"), "folder of artefacts")
	for _, required := range []string{"name", "label"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err) // the flag stands a few lines above
		}
	}
	return cmd
}

// workerCommand is the process in which a native library trains; the trainer
// starts it.
func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "train-worker", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.TrainWorker(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
