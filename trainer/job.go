package trainer

import "github.com/kedge-ml/kedge/model"

// workerJob is all that a training process is told, besides the values.
type workerJob struct {
	Library    string            `json:"library"`
	Device     Device            `json:"device"`
	GPUs       int               `json:"gpus"`
	NoGPU      string            `json:"no_gpu,omitempty"` // why there is none
	Params     map[string]string `json:"params"`           // XGBoost's
	Metric     string            `json:"metric"`           // early stopping watches it
	Higher     bool              `json:"higher"`
	Rounds     int               `json:"rounds"`
	EarlyStop  int               `json:"early_stop"`
	Checkpoint int               `json:"checkpoint"`
	Names      []string          `json:"names"`
	Types      []string          `json:"types"` // q or c
	Sets       []workerSet       `json:"sets"`  // first train, then valid
	GoldenRows int               `json:"golden_rows"`
	Resume     *workerResume     `json:"resume,omitempty"`
	Threads    int               `json:"threads"`
}

// workerSet announces the data frames of one set: the columns one behind the
// other in one frame, the label, and the weights if there are any.
type workerSet struct {
	Name   string `json:"name"`
	Rows   int    `json:"rows"`
	Weight bool   `json:"weight"`
}

type workerResume struct {
	Rounds int  `json:"rounds"`
	Best   Best `json:"best"`
}

// workerRound is one round's metrics on their way back.
type workerRound struct {
	Round   int                           `json:"round"`
	Metrics map[string]map[string]float64 `json:"metrics"`
}

// workerDone ends the conversation, well or not.
type workerDone struct {
	Error   string       `json:"error,omitempty"`
	Kind    string       `json:"kind,omitempty"` // which sentinel the error is
	Rounds  int          `json:"rounds"`
	Best    Best         `json:"best"`
	Device  model.Device `json:"device"`
	Version string       `json:"version"`
	Outputs int          `json:"outputs"`
	DataCPU float64      `json:"data_cpu"` // seconds until the rows lay in the library
}

// Kinds of errors that cross the pipe and are sentinels again on this side.
const (
	kindNoLibrary = "no library"
	kindDevice    = "device"
	kindParam     = "param"
	kindCancelled = "cancelled"
)
