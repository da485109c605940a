package trainer

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/kedge-ml/kedge/model"
)

// maxNumericClasses is up to how many distinct whole numbers a numeric label is
// taken for classes when nobody says what it is.
const maxNumericClasses = 20

// InferTask guesses what a label asks for: two values are a binary question,
// texts or a few small whole numbers are classes, anything else is a number.
func InferTask(m *Matrix) model.Task {
	if m.Classes != nil {
		return taskOfClasses(len(m.Classes))
	}
	values, whole := distinct(m.Label, maxNumericClasses+1)
	switch {
	case len(values) == 2:
		return model.Binary
	case whole && len(values) <= maxNumericClasses && values[0] == 0 && values[len(values)-1] == float32(len(values)-1):
		return model.MultiClass
	}
	return model.Regression
}

func taskOfClasses(n int) model.Task {
	if n == 2 {
		return model.Binary
	}
	return model.MultiClass
}

// distinct returns up to limit distinct values, sorted, and whether all of
// them are whole numbers.
func distinct(v []float32, limit int) (values []float32, whole bool) {
	seen := make(map[float32]bool)
	whole = true
	for _, x := range v {
		if !seen[x] {
			seen[x] = true
			values = append(values, x)
			whole = whole && x == float32(math.Trunc(float64(x)))
			if len(values) == limit {
				break
			}
		}
	}
	slices.Sort(values)
	return values, whole
}

// Prepare checks that the matrix can answer a task and turns a numeric label
// into class codes where the task wants classes.
func Prepare(m *Matrix, task model.Task) error {
	if m.Rows() == 0 {
		return ErrNoRows
	}
	if i := slices.IndexFunc(m.Label, func(v float32) bool { return v-v != 0 }); i >= 0 {
		return fmt.Errorf("%w: row %d has %v: leave rows without a label out", ErrLabel, i, m.Label[i])
	}
	if m.Weight != nil && !slices.ContainsFunc(m.Weight, func(w float32) bool { return w > 0 }) {
		return fmt.Errorf("%w: every row weighs 0", ErrNoRows)
	}
	switch task {
	case model.Regression, model.Quantiles:
		if m.Classes != nil {
			return fmt.Errorf("%w: a text label (%q, …) for a regression: train a classifier, or label with numbers", ErrLabel, m.Classes[0])
		}
		return nil
	case model.Binary, model.MultiClass:
		return prepareClasses(m, task)
	}
	return fmt.Errorf("%w: task %q", ErrParam, task)
}

func prepareClasses(m *Matrix, task model.Task) error {
	const maxClasses = 1000
	if m.Classes == nil {
		values, _ := distinct(m.Label, maxClasses+1)
		if len(values) > maxClasses {
			return fmt.Errorf("%w: more than %d distinct numbers for a classification: train a regression", ErrLabel, maxClasses)
		}
		for i, v := range m.Label {
			code, _ := slices.BinarySearch(values, v)
			m.Label[i] = float32(code)
		}
		for _, v := range values {
			m.Classes = append(m.Classes, strconv.FormatFloat(float64(v), 'f', -1, 32))
		}
	}
	present, _ := distinct(m.Label, len(m.Classes)+1)
	if len(present) < 2 {
		return fmt.Errorf("%w: every row is %q: widen the time range, or check the label's source", ErrOneClass, m.Classes[int(present[0])])
	}
	if task == model.Binary && len(m.Classes) != 2 {
		return fmt.Errorf("%w: %d classes (%q, …) for a binary model: train a multi-class one", ErrLabel, len(m.Classes), m.Classes[0])
	}
	return nil
}
