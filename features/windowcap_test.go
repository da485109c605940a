package features

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// TestWindowMemoryIsCapped puts events into every tile of every window of one
// key, with the longest texts that are kept, and more of them than the windows
// reach back; what the key takes never passes what its definition says, and a
// definition that says more than the cap is refused.
func TestWindowMemoryIsCapped(t *testing.T) {
	spec := &WindowSpec{Source: "v"}
	for _, w := range []time.Duration{time.Minute, 90 * 24 * time.Hour} {
		for function, column := range map[string]string{"count": "", "sum": "x", "stddev": "x", "min": "x", "max": "x", "first": "s", "last": "s", "distinct": "s"} {
			spec.Features = append(spec.Features, WindowFeature{Name: function + w.String(), Function: function, Column: column, Window: event.Duration(w)})
		}
	}
	source := viewSchema(fieldsOf("k Int64"), fieldsOf("x Float64", "s String"))
	p, err := compileWindow(spec, source, "w", 9)
	must(t, err)
	table := newWindowTable(p, 0)
	defer table.close()
	const start = int64(1_790_000_000_000_000)
	var times []int64
	for back := int64(120); back > 0; back-- {
		times = append(times, start-back*day)
	}
	for i := range int64(200) {
		times = append(times, start-200*second+i*second)
	}
	key, largest := appendIntKey(nil, 1), 0
	h := hashKey(table.seed, key)
	for i, at := range times {
		b := event.NewBatch(source, "")
		for n := range 40 {
			text := fmt.Sprint(i, n)
			addRow(b, factRow{keys: []any{int64(1)}, v: Version{EventTime: at, Created: at, Offset: int64(40*i + n)},
				values: map[string]any{"x": float64(n), "s": text + strings.Repeat("x", maxWindowText-len(text))}})
		}
		table.apply(b, at)
		s := &table.shards[h>>table.shift]
		slot, _ := s.find(uint32(h), key)
		largest = max(largest, len(table.state(s, slot)))
	}
	if most := p.maxBytes(); largest > most || largest < most/4 {
		t.Errorf("one key took %d bytes, of at most %d", largest, most)
	}

	many := func(n int) *WindowSpec {
		spec := &WindowSpec{Source: "v"}
		for i := range n {
			spec.Features = append(spec.Features, WindowFeature{Name: fmt.Sprint("d", i), Function: "distinct", Column: fmt.Sprint("c", i), Window: event.Duration(maxWindow)})
		}
		return spec
	}
	wide := viewSchema(fieldsOf("k Int64"), fieldsOf(strings.Split(strings.TrimSuffix(strings.Repeat("c%d String,", 60), ","), ",")...))
	for i := range wide.Values() {
		wide.Values()[i].Name = fmt.Sprint("c", i)
	}
	if _, err := compileWindow(many(44), wide, "w", 9); err != nil { // 92 tiles of 8 + 44 x 1,026 bytes: 4.15 MB
		t.Errorf("44 features: %v", err)
	}
	if _, err := compileWindow(many(45), wide, "w", 9); err == nil || !strings.Contains(err.Error(), "define fewer features") {
		t.Errorf("45 features, more than 4 MiB a key: %v", err)
	}
}
