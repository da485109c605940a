package drift

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/store"
)

// performanceColumn is the column that judgements of performance carry.
const performanceColumn = "(performance)"

// leastLoss is the loss that is worth a word however steady the reference was.
const leastLoss = 0.02

// measured is what is known of a window when it is judged.
type measured struct {
	start    time.Time
	values   map[string]perf.Value
	expected map[perf.Metric]perf.Estimate
	mature   bool
	before   bool // it was measured before
	told     bool // and judged
	revision uint64
}

// judge turns a mature value and an expected one into verdicts, once each.
func (p *performance) judge(ctx context.Context, m *Monitor, w measured) error {
	f, end := p.fitted, w.start.Add(p.fitted.window)
	var js []Judgement
	if e, ok := w.expected[perf.Metric(f.metric)]; ok && !w.before {
		j := f.loss("expected_"+f.metric, perf.Value{Value: e.Value, StdErr: e.StdErr}, m.cfg.Options.Alpha)
		j.Severity = min(j.Severity, control.Warning) // it holds only while scores stay calibrated
		js = append(js, j)
		m.outlook = fmt.Sprintf("the model's expected %s is %.3f, %.3f in the reference", f.metric, e.Value, f.values[f.metric].Value)
	}
	if v, ok := w.values[f.metric]; ok && w.mature {
		js = append(js, f.loss(f.metric, v, m.cfg.Options.Alpha))
	}
	var out []store.Verdict
	for _, j := range js {
		finding := Finding{Judgement: j, At: end}
		past := w.told || m.past(w.start, end)
		if !past {
			finding = m.watch.Step(j, end)
		}
		v := m.verdict(Column{Name: j.Column}, finding, w.start, end)
		v.Reference = f.reference
		if !past {
			m.hush(&v, finding)
		}
		out = append(out, v)
	}
	return m.store.SaveVerdicts(ctx, p.table, out, w.revision)
}

// loss judges how much worse a value is than the reference's: chance must not
// explain it, nor the reference's own unrest.
func (f *fit) loss(name string, v perf.Value, alpha float64) Judgement {
	ref := f.values[f.metric]
	worse := ref.Value - v.Value
	scale := 1.0
	if f.rising {
		worse, scale = -worse, max(math.Abs(ref.Value), 1e-12)
	}
	j := Judgement{Column: performanceColumn, Detector: name, Effect: worse, Low: worse, High: worse, Floor: leastLoss * scale, P: 1}
	if !math.IsNaN(f.floor) {
		j.Learnt, j.Floor = true, max(j.Floor, f.floor)
	}
	if se := math.Hypot(v.StdErr, ref.StdErr); se > 0 {
		j.P = math.Erfc(worse/se/math.Sqrt2) / 2
	}
	j.Adjusted = j.P
	j.Drifted = j.P <= alpha && worse >= j.Floor
	j.Calm = worse < calmShare*j.Floor
	if j.Drifted {
		j.Severity = control.Grade(worse/j.Floor, 0.9)
	}
	j.Detail = fmt.Sprintf("%s is %.3f ± %.3f, %.3f in the reference, whose own windows wander by %.3f", name, v.Value, v.StdErr, ref.Value, j.Floor)
	return j
}
