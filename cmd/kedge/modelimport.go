package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

// modelImport makes an artefact of a model that was trained elsewhere, without
// a server.
func modelImport() *cobra.Command {
	var f app.ModelFile
	cmd := &cobra.Command{
		Use: "import FILE --name NAME --rows ROWS.csv", Short: "Make an artefact of an ONNX file, or of XGBoost's JSON", Args: exactly(1, "model"),
		Long: "Make an artefact, which a Deployment serves, of a model that was trained elsewhere: a bare ONNX file with one tensor of\n" +
			"numbers as input, or a model that XGBoost saved as JSON. It needs a sample of rows (CSV, a column per input in\n" +
			"the model's order): they become the golden rows that every load replays, and the reference for drift. Name the columns that\n" +
			"hold what your own runtime answered with --answers: the import is refused where the serving runtime answers otherwise.",
		Example: "  kedge model import churn.onnx --name churn --rows sample.csv --answers probability --task binary --output probabilities --column 1\n" +
			"  kedge model import fraud.json --name fraud --rows sample.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.Name == "" || f.Rows == "" {
				return &usageError{errors.New("want --name and --rows"), "model import"}
			}
			f.Path = args[0]
			_, err := f.Import(cmd.OutOrStdout())
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.Name, "name", "", "model name")
	fs.StringVar(&f.Rows, "rows", "", "CSV with a header: rows to check the model with")
	fs.StringSliceVar(&f.Answers, "answers", nil, "columns of the rows with what the model's maker answered")
	fs.StringVar(&f.Task, "task", "", "binary, multiclass or regression; default: by XGBoost's objective, else regression")
	fs.StringVar(&f.Tensor, "output", "", "of ONNX: the output to read; default: \"output\", or the only one")
	fs.IntVar(&f.Column, "column", 0, "of ONNX: the output's first column to read")
	fs.IntVar(&f.Width, "width", 0, "of ONNX: columns to read; default: as many as --answers, or 1")
	fs.StringVar(&f.Artifacts, "artifacts", filepath.Join("kedge-data", "artifacts"), "folder of artefacts, the server's")
	return cmd
}
