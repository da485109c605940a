package trainer

import (
	"errors"
	"fmt"

	"github.com/kedge-ml/kedge/internal/gpu"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// Device is where a job asks to be trained.
type Device string

// Devices. Auto takes a GPU where everything agrees that there is one, and the
// CPU else, visibly. CUDA is refused where anything disagrees.
const (
	Auto Device = "auto"
	CPU  Device = "cpu"
	CUDA Device = "cuda"
)

// deviceFacts are the two things known before training.
type deviceFacts struct {
	build xgb.BuildInfo
	gpus  int
	gpu   error // why there is none
}

// errNoneGiven is why a run trains on the CPU of a machine with GPUs.
var errNoneGiven = fmt.Errorf("%w: the run was given none of this machine's: its resources.gpus is 0, or its namespace's quota is", gpu.ErrNoGPU)

// gpuFacts asks the driver.
func gpuFacts() (devices int, why error) {
	inv, err := gpu.Open()
	if err != nil {
		return 0, err
	}
	defer inv.Close()
	list, err := inv.Devices()
	return len(list), err
}

// choose decides what XGBoost is told, before training. XGBoost itself answers
// "cuda" without an error where it cannot, and trains on the CPU.
func (f deviceFacts) choose(asked Device) (tell string, d model.Device, err error) {
	d.Requested = string(asked)
	var why error
	switch {
	case !f.build.CUDA:
		why = errors.New("this XGBoost library was built without CUDA: use the wheel xgboost instead of xgboost-cpu")
	case f.gpu != nil:
		why = f.gpu
	case f.gpus == 0:
		why = gpu.ErrNoGPU
	}
	switch {
	case asked == CPU:
		return "cpu", d, nil
	case asked != Auto && asked != "" && asked != CUDA:
		return "", d, fmt.Errorf("%w: device %q: want auto, cpu or cuda", ErrParam, asked)
	case why == nil:
		return "cuda", d, nil
	case asked == CUDA:
		return "", d, fmt.Errorf("%w: cuda: %w", ErrDevice, why)
	}
	d.Requested = string(Auto)
	d.Reason = why.Error()
	return "cpu", d, nil
}

// confirm compares what was told with the configuration in force after the
// first round.
func confirm(d *model.Device, told, inForce string) error {
	d.Used = inForce
	if told != "cuda" || inForce != "cpu" {
		return nil
	}
	if d.Requested == string(CUDA) {
		return fmt.Errorf("%w: cuda: XGBoost fell back to the CPU in the first round", ErrDevice)
	}
	d.Reason = "XGBoost fell back to the CPU in the first round, though a GPU is listed"
	return nil
}
