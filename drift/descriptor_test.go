package drift_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
)

// reviews are rows of a text, an embedding and a name.
type reviews struct {
	words  int  // that there are; each comes as often as Zipf says
	shout  bool // one word in three is upper case
	turned bool // the embedding points elsewhere, as far as before
	cut    bool // it has half as many elements
}

// add writes one row.
func (r reviews) add(s *stream, rng *rand.Rand, at time.Time) {
	zipf := rand.NewZipf(rng, 1.2, 4, uint64(r.words-1))
	var text []string
	for range 6 + rng.IntN(6) {
		word := fmt.Sprintf("word%d", zipf.Uint64())
		if r.shout && rng.IntN(3) == 0 {
			word = strings.ToUpper(word)
		}
		text = append(text, word)
	}
	vector := make([]float32, 16)
	for i := range vector {
		centre := float64(i%2) - 0.5
		if r.turned {
			centre = float64((i/2)%2) - 0.5
		}
		vector[i] = float32(2*centre + 0.3*rng.NormFloat64())
	}
	if r.cut {
		vector = vector[:8]
	}
	s.row(at, func(c *event.Column, column int) {
		switch column {
		case 0:
			c.Data = append(c.Data, strings.Join(text, " ")...)
		case 1:
			c.Items.Float32s, c.Items.Nulls = append(c.Items.Float32s, vector...), append(c.Items.Nulls, make([]uint8, len(vector))...)
			c.Ends = append(c.Ends, uint64(len(c.Items.Float32s)))
			return
		case 2:
			c.Data = append(c.Data, []string{"bus", "car", "bike"}[rng.IntN(3)]...)
		}
		c.Nulls, c.StrEnds = append(c.Nulls, 0), append(c.StrEnds, uint32(len(c.Data)))
	})
}

// A text and an embedding are watched without a word said, by what they are
// like: quiet windows stay quiet, also of words that the reference never had,
// and what changes is named. A name stays a category.
func TestTextsAndEmbeddingsAreDescribed(t *testing.T) {
	text := event.ColumnType{Elem: event.String}
	s, reg := newStreamOf(t, event.Field{Name: "review", Type: text}, event.Field{Name: "embedding", Type: event.ColumnType{Elem: event.Float32, List: true}}, event.Field{Name: "by", Type: text}), openRegistry(t)
	rng := rand.New(rand.NewPCG(8, 9))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const windows, rows = 30, 200
	usual := reviews{words: 30_000}
	phases := []reviews{usual, {words: 30_000, shout: true}, {words: 300}, {words: 30_000, turned: true}, {words: 30_000, cut: true}}
	at := begin
	write := func(r reviews, n int) {
		for range n * rows {
			r.add(s, rng, at)
			at = at.Add(10 * time.Minute / rows)
		}
		at = at.Truncate(10 * time.Minute).Add(10 * time.Minute)
	}
	write(usual, windows)
	learnt, starts := at, []time.Time{}
	for _, r := range phases {
		starts = append(starts, at)
		write(r, 3)
	}
	s.flush()
	define(t, reg, drift.MonitorKind, "reviews", fmt.Sprintf(`{"view":"user","window":"10m","reference":{"from":%q,"to":%q}}`, begin.Format(time.RFC3339), learnt.Format(time.RFC3339)), "")
	newScheduler(t, s, reg).Look(t.Context(), at)
	d := newScheduler(t, s, reg) // what it counts by outlives a restart
	d.Look(t.Context(), at.Add(20*time.Minute))

	f := ask(t, s.store.Verdicts, query.Request{Namespace: "test", View: "user", From: learnt, To: at, Limit: 10_000})
	found := make([]map[string]bool, len(phases))
	for i, column := range cells(t, f, "column") {
		start := values[time.Time](t, f, "time")[i]
		k := len(starts) - 1
		for starts[k].After(start) {
			k--
		}
		if found[k] == nil {
			found[k] = map[string]bool{}
		}
		if values[bool](t, f, "drifted")[i] {
			found[k][column] = true
			t.Log(k, cells(t, f, "sentence")[i])
		}
		if column == "by" && cells(t, f, "detector")[i] == "ks" || column == "review" {
			t.Errorf("%s is judged by %s", column, cells(t, f, "detector")[i])
		}
	}
	vector := []string{"cosine_distance(embedding)", "norm(embedding)", "projection1(embedding)"}
	for k, want := range [][]string{{}, {"upper(review)"}, {"unknown(review)"}, vector[:1], append(vector, "length(embedding)")} {
		for _, column := range want {
			if !found[k][column] {
				t.Errorf("phase %d: %s is not told among %v", k, column, slices.Sorted(maps.Keys(found[k])))
			}
		}
		if k < 2 && len(found[k]) != len(want) {
			t.Errorf("phase %d: %v moved, want %v", k, slices.Sorted(maps.Keys(found[k])), want)
		}
	}
	if p := ask(t, d.Preview, query.Request{View: "user"}); !slices.Contains(cells(t, p, "column"), "script(review)") || !strings.Contains(fmt.Sprint(p.Notices), "review is not watched: it is a text") {
		t.Errorf("preview %+v", p)
	}
	checkUnknownIsFair(t, f, learnt)
}

// checkUnknownIsFair holds that words are no stranger after the reference than in
// it, though thousands of them come for the first time.
func checkUnknownIsFair(t *testing.T, f query.Frame, from time.Time) {
	t.Helper()
	for i, column := range cells(t, f, "column") {
		if start := values[time.Time](t, f, "time")[i]; column != "unknown(review)" || cells(t, f, "detector")[i] != "ks" || !start.Before(from.Add(30*time.Minute)) {
			continue
		}
		if effect := values[float64](t, f, "effect")[i]; effect > 1.7/math.Sqrt(200) {
			t.Errorf("a quiet window lies %v from the reference in its unknown words: %s", effect, cells(t, f, "sentence")[i])
		}
	}
}
