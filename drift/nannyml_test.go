package drift_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/drift/files"
	"github.com/kedge-ml/kedge/drift/peer"
	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// nannyGolden is what clients/nannyml/golden.py wrote: per key a value for
// every chunk, the reference's chunks first.
type nannyGolden struct {
	ChunkSize int                          `json:"chunk_size"`
	Drift     map[string][]json.RawMessage `json:"drift"`
	Expected  map[string][]*float64        `json:"expected"`
	Realised  map[string][]*float64        `json:"realised"`
}

// censusColumn is a column as both kinds.
type censusColumn struct {
	numbers []float64
	texts   []string
}

func readCensus(t *testing.T, file, name string) *censusColumn {
	t.Helper()
	f, err := files.Open(testenv.Shared(t, "data/employment_MA_"+file+".pq"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	c, err := f.Column(name)
	if err != nil {
		t.Fatal(err)
	}
	out := &censusColumn{numbers: c.Numbers, texts: c.Categories}
	if c.Categories == nil {
		for _, x := range c.Numbers {
			out.texts = append(out.texts, strconv.FormatFloat(x, 'g', -1, 64))
		}
	}
	return out
}

// The census files as NannyML itself saw them, chunk by chunk: every drift
// method's value, threshold and alert, what CBPE expects with its errors, and
// what late labels say.
func TestEmploymentAsNannyML(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(testenv.Root(t), "clients/nannyml/employment.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want nannyGolden
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	compared := compareDrift(t, &want) + compareExpected(t, &want)
	if compared < 5_000 {
		t.Errorf("%d values compared", compared)
	}
	t.Logf("%d values of NannyML compared", compared)
}

func compareDrift(t *testing.T, want *nannyGolden) (compared int) {
	t.Helper()
	for key := range want.Drift {
		name, ok := strings.CutSuffix(key, "/value")
		if !ok {
			continue
		}
		column, method, _ := strings.Cut(name, "/")
		ref, cur := readCensus(t, "reference", column), readCensus(t, "analysis", column)
		rows := func(c *censusColumn, ch peer.Chunk) peer.Column {
			if column == "AGEP" || column == "predicted_probability" {
				return peer.Numbers(c.numbers[ch.From:ch.To])
			}
			return peer.Categories(c.texts[ch.From:ch.To])
		}
		fitted, err := peer.FitNannyML(method, rows(ref, peer.Chunk{To: len(ref.texts)}))
		if err != nil {
			t.Fatal(err)
		}
		var got, p []float64
		for _, c := range []*censusColumn{ref, cur} {
			for _, ch := range peer.Chunks(len(c.texts), want.ChunkSize) {
				v, chance, err := fitted.Value(rows(c, ch))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got, p = append(got, v), append(p, chance)
			}
		}
		limits := peer.ThreeSigma(got[:len(peer.Chunks(len(ref.texts), want.ChunkSize))]).UpperOnly()
		compared += compareChunks(t, name, want.Drift, got, p, limits)
	}
	return compared
}

func compareChunks(t *testing.T, name string, want map[string][]json.RawMessage, got, p []float64, limits peer.Limits) (compared int) {
	t.Helper()
	if len(want[name+"/value"]) != len(got) {
		t.Fatalf("%s: %d chunks, want %d", name, len(got), len(want[name+"/value"]))
	}
	for i, raw := range want[name+"/value"] {
		var v float64
		var alert bool
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(want[name+"/alert"][i], &alert); err != nil {
			t.Fatal(err)
		}
		is := limits.Crossed(got[i])
		if strings.HasSuffix(name, "/chi2") {
			is = p[i] < 0.05
		}
		if math.Abs(got[i]-v) > 1e-6*math.Abs(v)+1e-9 || is != alert {
			t.Errorf("%s chunk %d: %v alert %v, NannyML has %v alert %v", name, i, got[i], is, v, alert)
		}
		compared += 2
	}
	return compared
}

func compareExpected(t *testing.T, want *nannyGolden) (compared int) {
	t.Helper()
	ref := perf.Rows{Score: employmentColumn(t, "reference", "predicted_probability"), Predicted: yes(employmentColumn(t, "reference", "prediction")),
		Truth: yes(employmentColumn(t, "reference", "employed"))}
	cur := perf.Rows{Score: employmentColumn(t, "analysis", "predicted_probability"), Predicted: yes(employmentColumn(t, "analysis", "prediction")),
		Truth: yes(employmentColumn(t, "analysis_target", "employed"))}
	fit, err := perf.FitCBPE(ref, perf.ValueMatrix{{1, 0}, {0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, part := range []perf.Rows{ref, cur} {
		for _, ch := range peer.Chunks(len(part.Score), want.ChunkSize) {
			rows := part.Slice(ch.From, ch.To)
			expected, err := fit.Estimate(rows)
			if err != nil {
				t.Fatal(err)
			}
			realised := perf.Realized(rows, perf.ValueMatrix{})
			for _, m := range []perf.Metric{perf.ROCAUC, perf.F1, perf.Accuracy, perf.Precision, perf.Recall, perf.Specificity} {
				e, name := expected[m], string(m)
				for field, pair := range map[string][2]float64{
					name + "/value": {e.Value, *want.Expected[name+"/value"][at]}, name + "/sampling_error": {fit.StdErr(m, ch.To-ch.From), *want.Expected[name+"/sampling_error"][at]},
					name + "/upper": {e.Upper, *want.Expected[name+"/upper_confidence_boundary"][at]}, name + "/lower": {e.Lower, *want.Expected[name+"/lower_confidence_boundary"][at]},
					name + " realised": {realised[m], *want.Realised[name+"/value"][at]},
				} {
					if compared++; math.Abs(pair[0]-pair[1]) > 1e-6 {
						t.Errorf("chunk %d %s: %v, NannyML has %v", at, field, pair[0], pair[1])
					}
				}
			}
			at++
		}
	}
	return compared
}
