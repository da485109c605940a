package main

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

// trainCommand trains from a file, without a server: what comes of it is an
// artefact that any kedge can serve.
func (c *cli) trainCommand() *cobra.Command {
	var f app.TrainFile
	var j jobCall
	var auto autoCall
	cmd := &cobra.Command{
		Use: "train FILE | -f JOB.yaml | --auto", Short: "Train a model from a file, or run a TrainingJob on the server", Args: cobra.MaximumNArgs(1),
		Long: "With --auto, the server chooses everything: task, metric, back-end and budget follow from the stored rows of\n" +
			"--label VIEW:COLUMN (inputs: the view's other columns, or --features) or from --predictions MODEL; --deploy lets what\n" +
			"passes its gate run in the live model's shadow.\n\n" +
			"With -f, queue a TrainingJob on the server, which trains from stored rows, and follow it to its end\n" +
			"(status 3: the model did not pass its gate). With FILE, train here and without a server:\n\n" +
			"Train a model from a CSV or Parquet file. Task, metric and budget follow from the rows; a linear model is the\n" +
			"stated baseline; the winner is judged on the newest rows, which neither has seen. The artefact holds the model,\n" +
			"its signature with the reference of every column, golden rows and a card; a Deployment serves it.",
		Example: "  kedge train elec.csv --name elec --label class --start 1996-05-07T00:00:00Z --step 30m\n  kedge train trips.parquet --name fare --label fare --time picked_up --backend linear\n  kedge train -f job.yaml\n  kedge train --auto --deploy --name elec --label elec:class --drop day,date,period",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case auto.on:
				auto.name, auto.label, auto.drop, auto.why = f.Name, f.Label, f.Drop, j.why
				return c.trainAuto(cmd, &auto, j.detach)
			case j.file != "" && len(args) == 0:
				return c.trainJob(cmd, &j)
			case j.file != "" || len(args) == 0 || f.Name == "" || f.Label == "":
				return &usageError{errors.New("want a file with --name and --label, or -f JOB.yaml"), "train"}
			}
			f.Path = args[0]
			_, err := f.Train(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			return err
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
	fs.StringVarP(&j.file, "file", "f", "", "TrainingJob in YAML, or - for standard input")
	fs.StringVar(&j.why, "why", "", "of a TrainingJob: reason, kept with the run and the version that it makes")
	fs.BoolVar(&j.detach, "detach", false, "of a TrainingJob: print the run's id and leave it to the server")
	fs.BoolVar(&auto.on, "auto", false, "train on the server from stored rows, with everything chosen")
	fs.BoolVar(&auto.deploy, "deploy", false, "of --auto: what passes its gate runs in shadow, or, where nothing is live, becomes the champion")
	fs.StringVar(&auto.predictions, "predictions", "", "of --auto: model whose labelled predictions are the rows")
	fs.StringSliceVar(&auto.features, "features", nil, "of --auto: inputs as view:feature; default: the other columns of the label's view")
	fs.StringVar(&auto.from, "from", "", "of --auto: first time of rows, RFC 3339; default: the beginning")
	fs.StringVar(&auto.to, "to", "", "of --auto: end of rows, RFC 3339; default: now")
	cmd.AddCommand(c.runCommands()...)
	return cmd
}

// onnxWorkerCommand is the process in which ONNX Runtime computes; serving
// starts it.
func onnxWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "onnx-worker", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.ONNXWorker(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
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
