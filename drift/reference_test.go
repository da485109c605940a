package drift_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// A referenceCase is one folder of reference values: the exact input and what
// the named library answered.
type referenceCase struct {
	Name   string
	Kind   string           `json:"kind"`
	Expect []map[string]any `json:"expect"`
	Meta   map[string]any   `json:"-"` // every other member of expected.json
	Header []string         `json:"-"`
	Rows   [][]string       `json:"-"`
	parsed map[[2]string][]float64
}

// handler computes one expectation. It answers with the same members as the
// expectation, or with [stat.NotComputable].
type handler func(c *referenceCase, want map[string]any) (map[string]any, error)

// later lists the names whose detectors are not built, each with its reason.
func later() map[string]string {
	const peers = "a second library's variant of a detector that follows River"
	return map[string]string{
		"energy": "energy distance: not built yet", "evidently.ed": "energy distance: not built yet",
		"mmd2.gamma_fixed": "MMD: not built yet", "mmd2.alibi_median_sigma": "MMD: not built yet",
		"mmd2.frouros": "MMD: not built yet", "mmd2.permutation": "MMD: not built yet",
		"nannyml.domain_classifier": "domain classifier: needs the trainer", "nannyml.dle": "DLE: needs the trainer",
		"kswin.river": "KSWIN: not built yet", "eddm.river": "EDDM: not built yet",
		"hddmw.river": "HDDM-W: not built yet", "fhddm.river": "FHDDM: not built yet",
		"ranking_metrics": "ranking metrics: not built yet", "evidently.TVD": "a permutation p-value of a seeded Python loop",
		"adwin.frouros": peers, "cusum.frouros": peers, "ddm.frouros": peers, "ecddwt.frouros": peers,
		"eddm.frouros": peers, "geometricmovingaverage.frouros": peers, "hddma.frouros": peers,
		"hddmw.frouros": peers, "pagehinkley.frouros": peers, "rddm.frouros": peers, "stepd.frouros": peers,
	}
}

// referenceDir is the developer set, or another set of the same formats named
// by KEDGE_DRIFT_REFERENCE.
func referenceDir(t *testing.T) string {
	if dir := os.Getenv("KEDGE_DRIFT_REFERENCE"); dir != "" {
		return dir
	}
	return testenv.Shared(t, "reference/drift")
}

func loadCases(t *testing.T) []*referenceCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(referenceDir(t), "*", "expected.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no reference cases (%v)", err)
	}
	var out []*referenceCase
	for _, f := range files {
		out = append(out, loadCase(t, filepath.Dir(f)))
	}
	return out
}

func loadCase(t *testing.T, dir string) *referenceCase {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	c := &referenceCase{Name: filepath.Base(dir), parsed: map[[2]string][]float64{}}
	if err := errors.Join(json.Unmarshal(raw, c), json.Unmarshal(raw, &c.Meta)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "data.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	c.Header, c.Rows = rows[0], rows[1:]
	return c
}

// column returns a column's texts, of one part or of all rows.
func (c *referenceCase) column(name, part string) []string {
	i, p := slices.Index(c.Header, name), slices.Index(c.Header, "part")
	var out []string
	for _, row := range c.Rows {
		if part == "" || row[p] == part {
			out = append(out, row[i])
		}
	}
	return out
}

// numbers parses a column; an empty field is NaN.
func (c *referenceCase) numbers(name, part string) []float64 {
	key := [2]string{name, part}
	if out, ok := c.parsed[key]; ok {
		return out
	}
	var out []float64
	for _, s := range c.column(name, part) {
		v, err := strconv.ParseFloat(s, 64)
		if s == "" || err != nil {
			v = math.NaN()
		}
		out = append(out, v)
	}
	c.parsed[key] = out
	return out
}

// integers reports whether pandas reads a column as integers.
func (c *referenceCase) integers(name string) bool {
	return !slices.ContainsFunc(c.column(name, ""), func(s string) bool {
		_, err := strconv.ParseInt(s, 10, 64)
		return err != nil
	})
}

// present returns a column's texts without empty ones.
func (c *referenceCase) present(name, part string) []string {
	return slices.DeleteFunc(c.column(name, part), func(s string) bool { return s == "" })
}

func (c *referenceCase) meta(name string) float64 {
	v, _ := c.Meta[name].(float64)
	return v
}

func (c *referenceCase) names(member string) []string {
	var out []string
	list, _ := c.Meta[member].([]any)
	for _, v := range list {
		out = append(out, v.(string))
	}
	return out
}

func TestReferenceValues(t *testing.T) {
	handlers := allHandlers()
	tally := map[string][2]int{} // met, all
	for _, c := range loadCases(t) {
		for _, want := range c.Expect {
			name := want["name"].(string)
			reason, postponed := later()[name]
			h := handlers[name]
			if postponed == (h != nil) {
				t.Errorf("%s %s: want either a detector or a reason for having none (%q)", c.Name, name, reason)
			}
			if postponed || h == nil {
				continue
			}
			met := t.Run(c.Name+"/"+name, func(t *testing.T) { checkExpectation(t, c, want, h) })
			n := tally[name]
			if met {
				n[0]++
			}
			tally[name] = [2]int{n[0], n[1] + 1}
		}
	}
	report(t, tally)
}

func report(t *testing.T, tally map[string][2]int) {
	names := make([]string, 0, len(tally))
	for name := range tally {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		t.Logf("%-34s %d of %d", name, tally[name][0], tally[name][1])
	}
}

// defects lists where a library fails on data that has an answer; Kedge gives
// it.
func defects() map[string]string {
	return map[string]string{
		"evidently.cramer_von_mises": "an integer overflow in Evidently's copy of the exact law, with numpy 2",
	}
}

func checkExpectation(t *testing.T, c *referenceCase, want map[string]any, h handler) {
	got, err := h(c, want)
	if want["raises"] != nil && defects()[want["name"].(string)] != "" && err == nil {
		return
	}
	if undefined(c, want) {
		var none *stat.NotComputable
		if !errors.As(err, &none) || none.Reason == "" {
			t.Fatalf("answered %v (%v), want not computable", got, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("answered %v, want %v", err, want)
	}
	rtol := want["rtol"].(float64)
	loose := arbitrary(want["name"].(string))
	for key, w := range want {
		switch key {
		case "name", "source", "call", "convention", "match", "rtol", "p_value_note":
			continue
		}
		g, ok := got[key]
		if !ok {
			t.Errorf("no member %q", key)
			continue
		}
		for _, diff := range differences(key, plain(g), w, rtol, loose) {
			t.Error(diff)
		}
	}
}

// undefined reports whether the library had no answer: it raised, answered NaN,
// or compared with an empty side.
func undefined(c *referenceCase, want map[string]any) bool {
	if want["raises"] != nil || want["statistic"] == "NaN" || want["p_value"] == "NaN" || want["score"] == "NaN" {
		return true
	}
	n, counted := c.Meta["n_cur"].(float64)
	return counted && n == c.meta("n_cur_missing")
}

// plain turns an answer into what JSON would make of it, NaN kept as text.
func plain(v any) any {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return map[bool]string{true: "NaN", false: strings.TrimPrefix(fmt.Sprint(v), "+")}[math.IsNaN(v)]
		}
		return v
	case int:
		return float64(v)
	case uint64:
		return float64(v)
	case *float64:
		if v == nil {
			return nil
		}
		return plain(*v)
	case []float64:
		return plainList(v)
	case []uint64:
		return plainList(v)
	case []int:
		return plainList(v)
	case []bool:
		return plainList(v)
	case []map[string]any:
		return plainList(v)
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = plain(x)
		}
		return out
	}
	return v
}

func plainList[T any](list []T) []any {
	out := make([]any, len(list))
	for i, x := range list {
		out[i] = plain(x)
	}
	return out
}

// arbitrary gives members whose value in the source is not reproducible the
// tolerance that its own spread needs.
func arbitrary(name string) map[string]float64 {
	if name == "evidently.cramer_von_mises" {
		return map[string]float64{"score": 2e-3} // up to 20 values its exact law is counted in 16-bit floats
	}
	if name != "nannyml.cbpe" && name != "nannyml.realized" {
		return nil
	}
	return map[string]float64{
		// the order in which numpy's sort leaves ties differs between processors
		"roc_auc/sampling_error": 1e-3, "roc_auc/upper_confidence_boundary": 1e-4, "roc_auc/lower_confidence_boundary": 1e-4,
		// a bootstrap of 50 draws without a seed
		"average_precision/sampling_error": 0.5, "average_precision/upper_confidence_boundary": 0.06,
		"average_precision/lower_confidence_boundary": 0.06,
	}
}

func differences(path string, got, want any, rtol float64, loose map[string]float64) []string {
	for suffix, tol := range loose {
		if path == suffix || strings.HasSuffix(path, "."+suffix) {
			rtol = tol
		}
	}
	differ := []string{fmt.Sprintf("%s = %v, want %v", path, got, want)}
	switch w := want.(type) {
	case float64:
		g, ok := got.(float64)
		if ok && math.Abs(g-w) <= rtol*math.Abs(w)+1e-12 {
			return nil
		}
		return differ
	case string:
		if w == "Infinity" {
			w = "Inf"
		}
		if got == w || got == strings.Replace(w, "Infinity", "Inf", 1) {
			return nil
		}
		return differ
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return differ
		}
		var out []string
		for i := range w {
			out = append(out, differences(fmt.Sprintf("%s[%d]", path, i), g[i], w[i], rtol, loose)...)
		}
		return out
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return differ
		}
		var out []string
		for k := range w {
			out = append(out, differences(path+"."+k, g[k], w[k], rtol, loose)...)
		}
		return out
	}
	if got == want {
		return nil
	}
	return differ
}
