package files

import (
	"fmt"
	"math"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/peer"
	"github.com/kedge-ml/kedge/drift/stat"
)

// Presets judge as another tool does, instead of as Kedge does.
const (
	Evidently = "evidently" // its automatic test of each column, by its thresholds
	NannyML   = "nannyml"   // the Jensen–Shannon distance of each chunk against three deviations of the reference's
)

// EvidentlyShare is the share of drifted columns from which Evidently calls a
// dataset drifted.
const EvidentlyShare = 0.5

// nannyChunks is how many chunks NannyML cuts rows into unless it is told a size.
const nannyChunks = 10

// preset judges a column as a preset does. Evidently and NannyML look at what
// Kedge takes for an identifier too.
func preset(ref, cur *Column, name string, o Options) Compared {
	out := Compared{Column: name, Kind: ref.kind(), Severity: control.Quiet.String(), P: 1}
	judge := evidently
	if o.Preset == NannyML {
		judge = nanny
	}
	err := judge(&out, ref, cur, o)
	if err != nil {
		out.Reason = err.Error()
		out.Sentence = name + ": not compared, " + out.Reason
		return out
	}
	if out.Drifted {
		out.Severity = control.Warning.String()
	}
	return out
}

func evidently(out *Compared, ref, cur *Column, _ Options) error {
	d, err := peer.EvidentlyAuto(ref.peer(0, ref.Rows()), cur.peer(0, cur.Rows()))
	if err != nil {
		return err
	}
	out.Detector, out.Effect, out.Floor, out.Drifted = d.Method, d.Score, d.Threshold, d.Drift
	what := "drift from %.3g on"
	if d.Method == "ks" || d.Method == "chisquare" || d.Method == "z" {
		out.P, what = d.Score, "drift below %.3g"
	}
	out.Sentence = fmt.Sprintf("%s: Evidently's %s is %.3g, "+what, out.Column, d.Method, d.Score, d.Threshold)
	return nil
}

func nanny(out *Compared, ref, cur *Column, o Options) error {
	out.Detector = "jensen_shannon"
	fitted, err := peer.FitNannyML(out.Detector, ref.peer(0, ref.Rows()))
	if err != nil {
		return err
	}
	values := func(c *Column) (v []float64) {
		size := o.Chunk
		if size == 0 {
			size = max(1, c.Rows()/nannyChunks)
		}
		for _, chunk := range peer.Chunks(c.Rows(), size) {
			x, _, err := fitted.Value(c.peer(chunk.From, chunk.To))
			if err != nil { // a chunk without values has no distance, as there
				x = math.NaN()
			}
			v = append(v, x)
		}
		return v
	}
	is := values(cur)
	limits, told := peer.ThreeSigma(values(ref)).UpperOnly(), 0
	for _, x := range is {
		if limits.Crossed(x) {
			told++
		}
		if x > out.Effect {
			out.Effect = x
		}
	}
	if limits.Upper != nil {
		out.Floor = *limits.Upper
	}
	out.Drifted = told > 0
	out.Sentence = fmt.Sprintf("%s: NannyML's %s is beyond %.3g in %d of %d chunks, at most %.3g", out.Column, out.Detector, out.Floor, told, len(is), out.Effect)
	return nil
}

// peer is a stretch of a column as the other tools take it.
func (c *Column) peer(from, to int) peer.Column {
	if c.Numbers != nil {
		return peer.Numbers(c.Numbers[from:to])
	}
	var names []string
	for i := from; i < to; i++ {
		if !c.Missing[i] {
			names = append(names, c.Categories[i])
		}
	}
	return peer.Categories(names)
}

func (c *Column) kind() string {
	if c.Numbers != nil {
		return "numeric"
	}
	return "categorical"
}

// Detected is what one detector says of the rows of a column.
type Detected struct {
	Detector  string   `json:"detector"`
	Statistic float64  `json:"statistic"`
	P         *float64 `json:"p,omitempty"`
	Reason    string   `json:"reason,omitempty"` // why there is no answer
}

// detectAll asks every detector: those of numbers the rows themselves, those of
// categories their counts.
func detectAll(ref, cur *Column) []Detected {
	var out []Detected
	add := func(name string, r drift.Result, err error) {
		d := Detected{Detector: name}
		switch {
		case err != nil:
			d.Reason = err.Error()
		case math.IsInf(r.Statistic, 0) || math.IsNaN(r.Statistic):
			d.Reason = "the distance is infinite"
		default:
			if d.Statistic = r.Statistic; r.HasP {
				d.P = &r.P
			}
		}
		out = append(out, d)
	}
	if ref.Numbers != nil {
		for _, d := range drift.RowDetectors() {
			r, err := d.CompareRows(ref.Numbers, cur.Numbers)
			add(d.Name(), r, err)
		}
		return out
	}
	c, err := countBoth(ref, cur)
	for _, name := range []string{"chi2", "g", "cramers_v", "fisher", "two_proportion_z", "psi", "js", "hellinger", "tvd", "l_infinity", "kl"} {
		var r drift.Result
		none := err
		if none == nil {
			d, _ := drift.Detector(name) // the names are of the table
			r, none = d.Compare(c)
		}
		add(name, r, none)
	}
	return out
}

// countBoth counts categories on the union of both sides: exact mode has no cells.
func countBoth(ref, cur *Column) (*drift.Comparison, error) {
	found := map[string]uint64{}
	for _, c := range []*Column{ref, cur} {
		for i, name := range c.Categories {
			if !c.Missing[i] {
				found[name]++
			}
		}
	}
	g, err := dist.CategoryGrid(found, dist.GridConfig{Categories: min(max(2, len(found)), dist.MaxCategories)})
	if err != nil {
		return nil, &stat.NotComputable{Reason: stat.EmptyReference}
	}
	return drift.Compare(g, summarize(g, ref), summarize(g, cur))
}
