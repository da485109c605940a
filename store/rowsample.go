package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
)

// RowSample are rows drawn by a hash of where they came from, as columns. NaN and
// the empty string stand for nothing.
type RowSample struct {
	Numbers map[string][]float64
	Texts   map[string][]string
	Rows    int
}

// SampleColumns draws at most limit rows of a subject with event_time in
// [from, to). Texts may be columns or dimensions.
func (s *Store) SampleColumns(ctx context.Context, sub Subject, numbers, textual []string, from, to time.Time, limit int) (*RowSample, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, fmt.Errorf("sample: %w", err)
	}
	picked, err := t.picked(numbers, textual)
	if err != nil {
		return nil, fmt.Errorf("sample of %s: %w", t.schema.Subject, err)
	}
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s AND %s ORDER BY cityHash64(_partition, _offset, _index) LIMIT %s", picked, s.ref(t.name), t.live(), inRange("event_time"), strconv.Itoa(limit))
	rows, err := s.query(ctx, sql, params{"from": micro(from), "to": micro(to)})
	if err != nil {
		return nil, fmt.Errorf("sample of %s: %w", t.schema.Subject, err)
	}
	defer rows.Close()
	out := newRowSample()
	for rows.Next() {
		var xs []float64
		var words []string
		if err := rows.Scan(&xs, &words); err != nil {
			return nil, fmt.Errorf("sample of %s: %w", t.schema.Subject, err)
		}
		out.add(numbers, textual, xs, words)
	}
	return out, rows.Err()
}

func newRowSample() *RowSample {
	return &RowSample{Numbers: map[string][]float64{}, Texts: map[string][]string{}}
}

func (s *RowSample) add(numbers, textual []string, xs []float64, words []string) {
	for i, n := range numbers {
		s.Numbers[n] = append(s.Numbers[n], xs[i])
	}
	for i, n := range textual {
		s.Texts[n] = append(s.Texts[n], words[i])
	}
	s.Rows++
}

// picked are a row's numbers and texts as two arrays.
func (t *table) picked(numbers, textual []string) (string, error) {
	xs, words := make([]string, len(numbers)), make([]string, len(textual))
	for i, n := range numbers {
		c, err := t.quantity(n, dist.Anchor{}, "", params{})
		if err != nil || c.anchored {
			return "", fmt.Errorf("%w: no numeric column %q", ErrUnknown, n)
		}
		xs[i] = "ifNull(CAST(" + c.value + ", 'Nullable(Float64)'), nan)"
	}
	for i, n := range textual {
		var err error
		if words[i], err = t.dimension(n); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("CAST([%s], 'Array(Float64)') AS numbers, CAST([%s], 'Array(String)') AS words", strings.Join(xs, ", "), strings.Join(words, ", ")), nil
}
