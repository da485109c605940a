package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
)

// Domain is the set of values that a column may hold. Numbers are written as
// decimals and compared as numbers.
type Domain struct {
	Column string
	Values []string
}

// Foreign is what rows held beside a domain.
type Foreign struct {
	Rows     uint64
	Examples []string // up to three, in ascending order
	Problem  string   // why there is no answer; empty when there is one
}

// ForeignValues counts, for each domain, a subject's live rows with event_time in
// [from, to) whose value is not in it. Missing values and NaN are no values. A
// domain that does not fit its column has a Problem and harms no other one.
func (s *Store) ForeignValues(ctx context.Context, sub Subject, domains []Domain, from, to time.Time) ([]Foreign, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, fmt.Errorf("values beside their domains: %w", err)
	}
	out := make([]Foreign, len(domains))
	p := params{"from": micro(from), "to": micro(to)}
	var selected []string
	var into []any
	for i, d := range domains {
		value, beside, err := t.beside(d, fmt.Sprintf("domain%d", i), p)
		if err != nil {
			out[i].Problem = err.Error()
			continue
		}
		selected = append(selected, fmt.Sprintf("countIf(%s), arraySort(groupUniqArrayIf(3)(%s, %[1]s))", beside, value))
		into = append(into, &out[i].Rows, &out[i].Examples)
	}
	if len(selected) == 0 {
		return out, nil
	}
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s AND %s", strings.Join(selected, ", "), s.ref(t.name), t.live(), inRange("event_time"))
	if err := s.queryRow(ctx, sql, p).Scan(into...); err != nil {
		return nil, fmt.Errorf("values of %s beside their domains: %w", t.schema.Subject, err)
	}
	return out, nil
}

// beside are a column's value as text, and the condition that it is none of the
// domain's. What may be held travels as the parameter key.
func (t *table) beside(d Domain, key string, p params) (value, condition string, err error) {
	c, err := t.quantity(d.Column, dist.Anchor{}, key, p)
	if err != nil {
		return "", "", fmt.Errorf("there is no column %q of single values", d.Column)
	}
	value = fmt.Sprintf("ifNull(toString(%s), '')", c.value)
	switch {
	case c.categorical:
		p[key] = textList(d.Values)
		return value, fmt.Sprintf("isNotNull(%s) AND NOT has(arrayMap(h -> unhex(h), {%s:Array(String)}), %s)", c.value, key, value), nil
	case !c.number || c.anchored:
		return "", "", fmt.Errorf("column %q has no domain of texts or numbers", d.Column)
	}
	numbers := make([]float64, len(d.Values))
	for i, v := range d.Values {
		if numbers[i], err = strconv.ParseFloat(v, 64); err != nil {
			return "", "", fmt.Errorf("column %q holds numbers, %q is none", d.Column, v)
		}
		if c.single {
			numbers[i] = float64(float32(numbers[i]))
		}
		numbers[i] += 0 // -0 is 0
	}
	p[key] = bitList(numbers)
	number := fmt.Sprintf("ifNull(CAST(%s, 'Nullable(Float64)'), nan)", c.value)
	return value, fmt.Sprintf("NOT isNaN(%s) AND NOT has(arrayMap(b -> reinterpretAsFloat64(b), {%s:Array(UInt64)}), %[1]s)", number, key), nil
}
