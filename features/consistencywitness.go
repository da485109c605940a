package features

import (
	"iter"
	"slices"

	"github.com/kedge-ml/kedge/event"
)

// witness looks at the rows of a join as they pass. Of a key that changes many
// times a second neither the join for a read's time nor that for a moment before
// has what was served; but a read says which row it was given. It was right if
// that row is stored as it was served, was known, and none that was known before
// the tolerance is newer.
type witness struct {
	samples   []sample
	tolerance int64
	asked     map[string][]int // samples by key
	wanted    []string
	schema    *event.Schema
	at        []int          // wanted → batch column, for schema; -1: it has none
	columns   []event.Column // of the rows kept
	place     []int          // per sample, in columns; -1: not there
	missed    []bool         // per sample: a newer row was there long enough
	key       []byte
}

func newWitness(samples []sample, wanted []string, types []event.ColumnType, tolerance int64) *witness {
	w := &witness{samples: samples, tolerance: tolerance, asked: map[string][]int{}, wanted: wanted, place: make([]int, len(samples)), missed: make([]bool, len(samples))}
	for i := range samples {
		w.place[i] = -1
		w.asked[string(samples[i].key)] = append(w.asked[string(samples[i].key)], i)
	}
	for _, t := range types {
		w.columns = append(w.columns, newColumn(t, true))
	}
	return w
}

// watch passes rows on.
func (w *witness) watch(rows iter.Seq2[*event.Batch, error]) iter.Seq2[*event.Batch, error] {
	return func(yield func(*event.Batch, error) bool) {
		for b, err := range rows {
			if err == nil {
				w.batch(b)
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func (w *witness) batch(b *event.Batch) {
	if b.Schema != w.schema {
		w.schema, w.at = b.Schema, w.at[:0]
		for _, name := range w.wanted {
			at := slices.IndexFunc(b.Schema.Values(), func(f event.Field) bool { return f.Name == name })
			if at >= 0 {
				at += b.Schema.ValueStart()
			}
			w.at = append(w.at, at)
		}
	}
	for row := range b.Rows {
		w.key = AppendKey(w.key[:0], b.Columns[b.Schema.KeyStart():b.Schema.ValueStart()], row)
		mine := w.asked[string(w.key)]
		if len(mine) == 0 {
			continue
		}
		v := batchVersion(b, row)
		available := max(v.EventTime, b.Columns[event.ColKnownAt].Int64s[row])
		for _, i := range mine {
			s := &w.samples[i]
			switch c := v.Compare(s.version); {
			case c > 0 && available <= s.at-w.tolerance:
				w.missed[i] = true
			case c == 0 && available <= s.at && b.Columns[event.FeatureDelete].Bools[row] == 0:
				w.keep(b, row, i)
			}
		}
	}
}

func (w *witness) keep(b *event.Batch, row, sample int) {
	for i, at := range w.at {
		w.place[sample] = w.columns[i].Len()
		if at < 0 {
			w.columns[i].AppendNull()
			continue
		}
		copyValue(&w.columns[i], &b.Columns[at], row)
	}
}

// right reports where in the columns the row of a read lies that was served with
// right; -1: nowhere.
func (w *witness) right(sample int) int {
	if w == nil || w.missed[sample] || w.samples[sample].status != Present {
		return -1
	}
	return w.place[sample]
}
