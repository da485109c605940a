package trainer

import (
	"math"

	"github.com/kedge-ml/kedge/model"
)

// calibrationBins is how many equally wide bins probabilities are sorted into.
const calibrationBins = 10

// Calibrate holds binary probabilities p against what happened, y (0 or 1), with
// weights w.
//
// Murphy (1973), A New Vector Partition of the Probability Score: the Brier score
// is reliability − resolution + uncertainty where all rows of a bin say the same;
// Within is what is left since they do not (Stephenson et al. 2008).
func Calibrate(p, y, w []float64) *model.Calibration {
	var bins [calibrationBins]model.CalibrationBin
	var total, base, brier float64
	for i := range p {
		b := &bins[min(calibrationBins-1, max(0, int(p[i]*calibrationBins)))]
		b.Weight += w[i]
		b.Said += w[i] * p[i]
		b.Happened += w[i] * y[i]
		total += w[i]
		base += w[i] * y[i]
		brier += w[i] * (p[i] - y[i]) * (p[i] - y[i])
	}
	base /= total
	out := &model.Calibration{Brier: brier / total, Uncertainty: base * (1 - base)}
	for i := range bins {
		b := &bins[i]
		if b.Weight == 0 {
			continue
		}
		b.From, b.To = float64(i)/calibrationBins, float64(i+1)/calibrationBins
		b.Said /= b.Weight
		b.Happened /= b.Weight
		share := b.Weight / total
		out.ECE += share * math.Abs(b.Said-b.Happened)
		out.Reliability += share * (b.Said - b.Happened) * (b.Said - b.Happened)
		out.Resolution += share * (b.Happened - base) * (b.Happened - base)
		out.Bins = append(out.Bins, *b)
	}
	out.Within = out.Brier - (out.Reliability - out.Resolution + out.Uncertainty)
	return out
}
