package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// quantity is what statements count of a column: its value in each row, of a
// Nullable type that CAST takes, and the condition of rows that are counted.
type quantity struct {
	value       string
	where       string // "" counts all rows; else it begins with AND
	categorical bool
	number      bool
	single      bool // a Float32
	anchored    bool // it is nothing without its anchor
}

// quantity finds a column of single values, or a descriptor of one. A
// descriptor's anchor travels as parameters that begin with key.
func (t *table) quantity(name string, anchor dist.Anchor, key string, p params) (quantity, error) {
	if c, f, ok := t.find(name); ok {
		if f.Type.List || isMap(f.Type.Elem) {
			return quantity{}, fmt.Errorf("%w: column %q holds no single values", ErrUnknown, name)
		}
		out := quantity{value: chdb.QuoteIdent(c.name), categorical: f.Type.Elem == event.String || f.Type.Elem == event.Bool}
		out.number = slices.Contains([]event.Type{event.Int32, event.Int64, event.Float32, event.Float64}, f.Type.Elem)
		out.single = f.Type.Elem == event.Float32
		return out, nil
	}
	d, ok := event.ParseDescriptor(name)
	if !ok {
		return quantity{}, fmt.Errorf("%w: no column %q", ErrUnknown, name)
	}
	c, f, ok := t.find(d.Column)
	if !ok || !slices.Contains(f.Descriptors(), event.Descriptor{Function: d.Function, Column: f.Name}) {
		return quantity{}, fmt.Errorf("%w: no column %q of which there is a %s", ErrUnknown, d.Column, d.Function)
	}
	out := quantity{categorical: d.Function == event.ScriptOf, number: d.Function != event.ScriptOf}
	out.anchored = !slices.Contains([]string{event.LengthOf, event.WordsOf, event.UpperOf, event.ScriptOf, event.NormOf}, d.Function)
	column := chdb.QuoteIdent(c.name)
	if f.Type.List {
		out.value = vectorDescriptor(d.Function, column, anchor, key, p)
		out.where = " AND notEmpty(" + column + ")"
	} else {
		out.value = textDescriptor(d.Function, column, anchor, key, p)
		out.where = " AND isNotNull(" + column + ")"
	}
	if d.Function == event.LengthOf { // which speaks for all of what is missing
		out.where = ""
	}
	return out, nil
}

// Words are runs of letters, digits, marks and underscores, in lower case.
const (
	wordPattern = `'[\\pL\\pN\\pM_]+'`
	words       = `arrayDistinct(extractAll(lowerUTF8(assumeNotNull(%s)), ` + wordPattern + `))`
)

// half is which of two halves a row belongs to, by where it came from.
const half = "cityHash64(_partition, _offset, _index) % 2"

func textDescriptor(function, column string, anchor dist.Anchor, key string, p params) string {
	switch function {
	case event.LengthOf:
		return "toFloat64(lengthUTF8(" + column + "))"
	case event.WordsOf:
		return "toFloat64(countMatches(" + column + ", " + wordPattern + "))"
	case event.UpperOf:
		return fmt.Sprintf(`countMatches(%s, '\\p{Lu}') / greatest(countMatches(%[1]s, '\\pL'), 1)`, column)
	case event.ScriptOf:
		return script(column)
	}
	known := make([]string, 2)
	list := fmt.Sprintf("extractAll(lowerUTF8(ifNull(%s, '')), %s)", column, wordPattern)
	for i, hashes := range anchor.Words {
		name := fmt.Sprintf("%swords%d", key, i)
		p[name] = wordList(append([]uint64{0}, hashes...)) // transform wants one at least
		known[i] = fmt.Sprintf("arrayCount(w -> transform(xxHash64(w), {%s:Array(UInt64)}, arrayWithConstant(%d, 1), 0) = 0, %s)", name, len(hashes)+1, list)
	}
	return fmt.Sprintf("if(%s = 0, %s, %s) / greatest(length(%s), 1)", half, known[0], known[1], list)
}

// scripts are told apart by their names in Unicode; of as many letters the first
// one here wins.
func scripts() []string {
	return []string{"Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Kana", "Han"}
}

func script(column string) string {
	text := "assumeNotNull(" + column + ")"
	counts := []string{"(toUInt64(0), 'none')"} // what no letter belongs to
	for _, name := range scripts() {
		pattern := `\\p{` + name + `}`
		if name == "Kana" {
			pattern = `[\\p{Hiragana}\\p{Katakana}]`
		}
		counts = append(counts, fmt.Sprintf("(countMatches(%s, '%s'), '%s')", text, pattern, name))
	}
	most := "arraySort(c -> -toInt64(c.1), [" + strings.Join(counts, ", ") + "])[1]" // stable: the first of equals
	other := fmt.Sprintf(`if(match(%s, '\\pL'), 'other', 'none')`, text)
	return fmt.Sprintf("if(length(%[1]s) = lengthUTF8(%[1]s), if(match(%[1]s, '[A-Za-z]'), 'Latin', 'none'), if(%[2]s.1 = 0, %[3]s, %[2]s.2))", text, most, other)
}

// vectorDescriptor takes a missing element for NaN, and so whatever is made of it.
// A vector of another length than the reference's has a length alone.
func vectorDescriptor(function, column string, anchor dist.Anchor, key string, p params) string {
	vector := "arrayMap(v -> ifNull(toFloat64(v), nan), " + column + ")"
	switch function {
	case event.LengthOf:
		return "if(empty(" + column + "), NULL, toFloat64(length(" + column + ")))"
	case event.NormOf:
		return "L2Norm(" + vector + ")"
	}
	p[key+"vector"] = bitList(anchor.Vector)
	measure := "arrayDotProduct"
	if function == event.CosineOf {
		measure = "cosineDistance"
	}
	return fmt.Sprintf("if(length(%s) = %d, %s(arrayResize(%s, %[2]d, nan), arrayMap(b -> reinterpretAsFloat64(b), {%[5]svector:Array(UInt64)})), nan)",
		column, len(anchor.Vector), measure, vector, key)
}

const (
	anchorRows  = 20_000 // of a reference, that its words are taken from
	anchorWords = 2_000  // most frequent ones of either half of them
)

// Anchor is what a descriptor's values are made against, of the rows with
// event_time in [from, to): nothing for columns and most descriptors. Without a
// value there the error is [dist.ErrNoSample].
func (s *Store) Anchor(ctx context.Context, sub Subject, name string, from, to time.Time) (dist.Anchor, error) {
	var a dist.Anchor
	t, err := s.subjectTable(sub)
	if err != nil {
		return a, fmt.Errorf("anchor of %s: %w", name, err)
	}
	d, ok := event.ParseDescriptor(name)
	c, f, has := t.find(d.Column)
	if _, _, own := t.find(name); own || !ok || !has {
		return a, nil
	}
	source := fmt.Sprintf("FROM %s WHERE %s AND %s", s.ref(t.name), t.live(), inRange("event_time"))
	p := params{"from": micro(from), "to": micro(to)}
	switch {
	case d.Function == event.UnknownOf && !f.Type.List:
		a.Words, err = s.knownWords(ctx, chdb.QuoteIdent(c.name), source, p)
	case d.Function == event.CosineOf:
		a.Vector, err = s.centre(ctx, chdb.QuoteIdent(c.name), source, p)
	case strings.HasPrefix(d.Function, "projection"):
		var n uint64
		n, err = s.vectorLength(ctx, chdb.QuoteIdent(c.name), source, p)
		a.Vector = direction(d.Function, int(n))
	}
	if err != nil {
		return dist.Anchor{}, fmt.Errorf("anchor of %s: %w", name, err)
	}
	return a, nil
}

// knownWords are the words that most rows hold, of the other half for each half.
func (s *Store) knownWords(ctx context.Context, column, source string, p params) (out [2][]uint64, err error) {
	sql := fmt.Sprintf("SELECT h, xxHash64(w) FROM (SELECT h, w, count() AS n FROM (SELECT %s AS h, "+words+" AS ws %s AND isNotNull(%[2]s) ORDER BY cityHash64(_partition, _offset, _index) LIMIT %[4]d) "+
		"ARRAY JOIN ws AS w GROUP BY h, w) ORDER BY h, n DESC, w LIMIT %[5]d BY h", half, column, source, anchorRows, anchorWords)
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return out, err
	}
	defer rows.Close()
	for rows.Next() {
		var h uint8
		var hash uint64
		if err := rows.Scan(&h, &hash); err != nil {
			return out, err
		}
		out[1-h] = append(out[1-h], hash)
	}
	for i := range out {
		slices.Sort(out[i])
	}
	if len(out[0])+len(out[1]) == 0 && rows.Err() == nil {
		return out, dist.ErrNoSample
	}
	return out, rows.Err()
}

// vectorLength is the most frequent one.
func (s *Store) vectorLength(ctx context.Context, column, source string, p params) (n uint64, err error) {
	var rows uint64
	sql := fmt.Sprintf("SELECT any(l), any(c) FROM (SELECT length(%s) AS l, count() AS c %s AND notEmpty(%[1]s) GROUP BY l ORDER BY c DESC, l LIMIT 1)", column, source)
	if err := s.queryRow(ctx, sql, p).Scan(&n, &rows); err != nil {
		return 0, err
	}
	switch {
	case rows == 0:
		return 0, dist.ErrNoSample
	case n > dist.MaxVector:
		return 0, fmt.Errorf("vectors of %d elements, at most %d: %w", n, dist.MaxVector, dist.ErrNoSample)
	}
	return n, nil
}

// centre is the mean of the vectors of the most frequent length whose elements
// are all finite.
func (s *Store) centre(ctx context.Context, column, source string, p params) ([]float64, error) {
	n, err := s.vectorLength(ctx, column, source, p)
	if err != nil {
		return nil, err
	}
	p["length"] = strconv.FormatUint(n, 10)
	sql := fmt.Sprintf("SELECT avgForEach(v) FROM (SELECT arrayMap(v -> assumeNotNull(toFloat64(v)), %s) AS v %s AND length(%[1]s) = {length:UInt64} AND arrayAll(v -> ifNull(isFinite(v), 0), %[1]s))", column, source)
	var out []float64
	if err := s.queryRow(ctx, sql, p).Scan(&out); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, dist.ErrNoSample
	}
	return out, nil
}

// direction is a unit vector of signs drawn by hashes of their positions.
func direction(function string, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = 1 / math.Sqrt(float64(n))
		if dist.Hash(function+"/"+strconv.Itoa(i))&1 == 1 {
			out[i] = -out[i]
		}
	}
	return out
}
