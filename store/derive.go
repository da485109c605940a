package store

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
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

// Subject names the table that summaries are about, as [event.Schema] does.
type Subject struct {
	Kind    event.Kind
	TableID uint64
}

// SummaryColumn is a column to be counted on a grid.
type SummaryColumn struct {
	Name string // as requests write it
	Grid *dist.Grid
}

// WindowSummary is what a column looked like in one window of event_time. Its
// grid is named by Summary.GridID.
type WindowSummary struct {
	Column  string
	Segment string // "district=harbour"; empty: all rows
	Start   time.Time
	Summary *dist.Summary
}

// RestOfSegment is the value that stands for all values of a dimension that
// are not kept one by one.
const RestOfSegment = "OTHER"

// Dimension cuts rows into segments: by a column, by the version, or by a name
// in the map that predictions carry. Rows of other values are counted together.
type Dimension struct {
	Name   string
	Values []string
}

// Segments are the names of a dimension's segments; the last is the rest.
func (d Dimension) Segments() []string {
	out := make([]string, 0, len(d.Values)+1)
	for _, v := range append(slices.Clone(d.Values), RestOfSegment) {
		out = append(out, d.Name+"="+v)
	}
	return out
}

// columnsAtOnce bounds the length of one statement's parameters.
const columnsAtOnce = 8

// DeriveSummaries counts columns anew from the rows with event_time in
// [from, to), in windows of a length that divides from. Windows without rows
// are absent.
func (s *Store) DeriveSummaries(ctx context.Context, sub Subject, columns []SummaryColumn, from, to time.Time, length time.Duration) ([]WindowSummary, error) {
	return s.deriveBy(ctx, sub, Dimension{}, columns, from, to, length)
}

// DeriveSegments is DeriveSummaries segment by segment of a dimension.
func (s *Store) DeriveSegments(ctx context.Context, sub Subject, by Dimension, columns []SummaryColumn, from, to time.Time, length time.Duration) ([]WindowSummary, error) {
	if by.Name == "" {
		return nil, fmt.Errorf("derive segments: %w", invalid("a dimension needs a name"))
	}
	return s.deriveBy(ctx, sub, by, columns, from, to, length)
}

func (s *Store) deriveBy(ctx context.Context, sub Subject, by Dimension, columns []SummaryColumn, from, to time.Time, length time.Duration) ([]WindowSummary, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, fmt.Errorf("derive summaries: %w", err)
	}
	var out []WindowSummary
	for group := range slices.Chunk(columns, columnsAtOnce) {
		d := derivation{s: s, t: t, by: by, columns: group, p: params{"from": micro(from), "to": micro(to), "step": strconv.FormatInt(length.Microseconds(), 10)}, length: length}
		if err := d.cut(); err != nil {
			return nil, fmt.Errorf("derive summaries of %s: %w", t.schema.Subject, err)
		}
		got, err := d.run(s.yield(ctx))
		if err != nil {
			return nil, fmt.Errorf("derive summaries of %s: %w", t.schema.Subject, err)
		}
		out = append(out, got...)
	}
	return out, nil
}

// subjectTable finds a prepared table.
func (s *Store) subjectTable(sub Subject) (*table, error) {
	for _, t := range s.tables() {
		if t.schema.Kind == sub.Kind && t.schema.TableID == sub.TableID {
			return t, nil
		}
	}
	return nil, fmt.Errorf("%w: no %s table %d", ErrUnknown, sub.Kind, sub.TableID)
}

// derivation is one pass over a table for a few columns.
type derivation struct {
	s       *Store
	t       *table
	by      Dimension
	key     string // expression of a row's window and segment as one number; see [derivation.split]
	parts   int64  // segments that a row may be in
	columns []SummaryColumn
	p       params
	length  time.Duration
}

// cut finds the expression that cuts rows into windows and segments: without a
// dimension all rows are one segment. Both are one number, since the engine
// groups by a number and a cell's edge at half the cost of grouping by three.
func (d *derivation) cut() error {
	d.key, d.parts = windowNumber, 1
	if d.by.Name == "" {
		return nil
	}
	value, err := d.t.dimension(d.by.Name)
	if err != nil {
		return err
	}
	if len(d.by.Values) > 0 {
		d.p["values"] = textList(d.by.Values)
		d.parts = int64(len(d.by.Values)) + 1 // the rest is the last
		d.key = fmt.Sprintf("%s * %d + toInt64(transform(%s, arrayMap(h -> unhex(h), {values:Array(String)}), range(0, %d), %[4]d))", windowNumber, d.parts, value, len(d.by.Values))
	}
	return nil
}

// split takes a key apart: windows count from the epoch, those before it below 0.
func (d *derivation) split(column uint32, key int64) windowKey {
	segment := key % d.parts
	if segment < 0 {
		segment += d.parts
	}
	return windowKey{column, uint32(segment), (key - segment) / d.parts}
}

// dimension is the text that a row has in a dimension; nothing is "". What a
// model's events call their segments may be called like our own columns.
func (t *table) dimension(name string) (string, error) {
	if c, f, ok := t.find(name); ok && !f.Type.List && !isMap(f.Type.Elem) && (f.Role != event.System || name == "version") {
		return "ifNull(CAST(" + chdb.QuoteIdent(c.name) + ", 'Nullable(String)'), '')", nil
	}
	if t.schema.Kind != event.Predictions {
		return "", fmt.Errorf("%w: %s has no column %q to cut segments by", ErrUnknown, t.schema.Subject, name)
	}
	return fmt.Sprintf("segments[unhex('%s')]", hex.EncodeToString([]byte(name))), nil
}

// windowKey is a column's position, a segment's and a window's number since the
// epoch.
type windowKey struct {
	column, segment uint32
	window          int64
}

func (d *derivation) run(ctx context.Context) ([]WindowSummary, error) {
	moments, cells, err := d.statements()
	if err != nil {
		return nil, err
	}
	found := map[windowKey]*dist.Summary{}
	if err := d.readMoments(ctx, moments, found); err != nil {
		return nil, err
	}
	if err := d.readCells(ctx, cells, found); err != nil {
		return nil, err
	}
	out := make([]WindowSummary, 0, len(found))
	segments := []string{""}
	if d.by.Name != "" {
		segments = d.by.Segments()
	}
	for k, sum := range found {
		start := time.UnixMicro(k.window * d.length.Microseconds()).UTC()
		out = append(out, WindowSummary{d.columns[k.column].Name, segments[k.segment], start, sum})
	}
	slices.SortFunc(out, func(a, b WindowSummary) int {
		return cmp.Or(strings.Compare(a.Column, b.Column), strings.Compare(a.Segment, b.Segment), a.Start.Compare(b.Start))
	})
	return out, nil
}

// statements are one UNION ALL over columns for the moments and one for the
// cells: grouping column by column costs a third of one wide aggregation.
func (d *derivation) statements() (moments, cells string, err error) {
	var ms, cs []string
	for i, c := range d.columns {
		col, err := d.t.quantity(c.Name, c.Grid.Anchor, fmt.Sprintf("anchor%d", i), d.p)
		if err != nil {
			return "", "", err
		}
		if c.Grid.Categorical() != col.categorical {
			return "", "", invalid("column %q does not fit its grid", c.Name)
		}
		if col.categorical {
			ms = append(ms, d.categoryMoments(i, col))
			cs = append(cs, d.categoryCells(i, col))
		} else {
			ms = append(ms, d.numberMoments(i, col))
			cs = append(cs, d.numberCells(i, col))
		}
	}
	return strings.Join(ms, " UNION ALL "), strings.Join(cs, " UNION ALL "), nil
}

// windowNumber counts windows since the epoch.
const windowNumber = "intDiv(toUnixTimestamp64Micro(event_time), {step:Int64})"

// source is the table's live rows of the range that are counted.
func (d *derivation) source(c quantity) string {
	from := fmt.Sprintf("FROM %s WHERE %s", d.s.ref(d.t.name), inRange("event_time"))
	if d.t.schema.Kind == event.Features {
		from += " AND NOT deleted"
	}
	return from + c.where
}

func (d *derivation) numberMoments(i int, c quantity) string {
	const ok = "ifNull(isFinite(x), 0)"
	return fmt.Sprintf("SELECT toUInt32(%d), w, countIf(%s), countIf(isNull(x)), countIf(isNaN(x)), countIf(isInfinite(x) AND x > 0), countIf(isInfinite(x) AND x < 0), "+
		"ifNull(sumIf(x, %[2]s), 0), ifNull(minIf(x, %[2]s), 0), ifNull(maxIf(x, %[2]s), 0), ifNull(varPopStableIf(x, %[2]s) * countIf(%[2]s), 0) "+
		"FROM (SELECT %[3]s AS w, CAST(%[4]s, 'Nullable(Float64)') AS x %[5]s) GROUP BY w", i, ok, d.key, c.value, d.source(c))
}

func (d *derivation) categoryMoments(i int, c quantity) string {
	return fmt.Sprintf("SELECT toUInt32(%d), w, countIf(isNotNull(x)), countIf(isNull(x)), toUInt64(0), toUInt64(0), toUInt64(0), "+
		"toFloat64(0), toFloat64(0), toFloat64(0), toFloat64(0) FROM (SELECT %s AS w, CAST(%s, 'Nullable(String)') AS x %s) GROUP BY w", i, d.key, c.value, d.source(c))
}

// numberCells answers each cell's lower edge. Edges travel as bits: the engine's
// reading of decimal numbers may miss the last one, and an atom is one bit wide.
func (d *derivation) numberCells(i int, c quantity) string {
	key := fmt.Sprintf("edges%d", i)
	d.p[key] = bitList(append([]float64{math.Inf(-1)}, d.columns[i].Grid.Edges...))
	return fmt.Sprintf("SELECT toUInt32(%d), w, roundDown(x, arrayMap(b -> reinterpretAsFloat64(b), {%s:Array(UInt64)})) AS e, count(), sum(x) "+
		"FROM (SELECT %s AS w, assumeNotNull(CAST(%s, 'Nullable(Float64)')) AS x %[5]s AND isNotNull(%[4]s) AND isFinite(x)) GROUP BY w, e", i, key, d.key, c.value, d.source(c))
}

// categoryCells answers each cell's number.
func (d *derivation) categoryCells(i int, c quantity) string {
	g := d.columns[i].Grid
	names, rest := fmt.Sprintf("names%d", i), fmt.Sprintf("rest%d", i)
	d.p[names], d.p[rest] = textList(g.Categories), wordList(g.Rest)
	return fmt.Sprintf("SELECT toUInt32(%d), w, toFloat64(multiIf(k > 0, k - 1, has({%s:Array(UInt64)}, xxHash64(x)), %d, %d)) AS e, count(), toFloat64(0) "+
		"FROM (SELECT %s AS w, assumeNotNull(CAST(%s, 'Nullable(String)')) AS x, "+
		"toInt64(transform(x, arrayMap(h -> unhex(h), {%s:Array(String)}), range(1, %d), 0)) AS k %[9]s AND isNotNull(%[6]s)) GROUP BY w, e",
		i, rest, g.Other(), unseenOr(g), d.key, c.value, names, len(g.Categories)+1, d.source(c))
}

// unseenOr is where an unknown category goes: a grid that could not keep all
// rare ones cannot tell them from new ones.
func unseenOr(g *dist.Grid) int {
	if g.RestOpen {
		return g.Other()
	}
	return g.Unseen()
}

func (d *derivation) readMoments(ctx context.Context, sql string, found map[windowKey]*dist.Summary) error {
	rows, err := d.s.query(ctx, sql, d.p)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var column uint32
		var key int64
		sum := &dist.Summary{}
		if err := rows.Scan(&column, &key, &sum.Count, &sum.Missing, &sum.NaN, &sum.PosInf, &sum.NegInf, &sum.Sum, &sum.Min, &sum.Max, &sum.M2); err != nil {
			return err
		}
		k := d.split(column, key)
		sum.GridID = d.columns[k.column].Grid.ID()
		sum.Weight = float64(sum.Rows())
		found[k] = sum
	}
	return rows.Err()
}

func (d *derivation) readCells(ctx context.Context, sql string, found map[windowKey]*dist.Summary) error {
	rows, err := d.s.query(ctx, sql, d.p)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var column uint32
		var key int64
		var edge float64
		var c dist.Cell
		if err := rows.Scan(&column, &key, &edge, &c.Count, &c.Sum); err != nil {
			return err
		}
		k := d.split(column, key)
		c.Index = cellIndex(d.columns[k.column].Grid, edge)
		if sum := found[k]; sum != nil {
			sum.Cells = append(sum.Cells, c)
		}
	}
	for _, sum := range found {
		slices.SortFunc(sum.Cells, func(a, b dist.Cell) int { return int(a.Index) - int(b.Index) })
	}
	return rows.Err()
}

func cellIndex(g *dist.Grid, edge float64) uint32 {
	if g.Categorical() {
		return uint32(edge)
	}
	return uint32(g.Cell(edge))
}

func bitList(xs []float64) string {
	words := make([]uint64, len(xs))
	for i, x := range xs {
		words[i] = math.Float64bits(x)
	}
	return wordList(words)
}

func wordList(words []uint64) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = strconv.FormatUint(w, 10)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// textList writes strings in hexadecimal, in which there is nothing to escape.
func textList(texts []string) string {
	parts := make([]string, len(texts))
	for i, x := range texts {
		parts[i] = "'" + hex.EncodeToString([]byte(x)) + "'"
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// unpack reads a summary that travelled as base64.
func unpack(packed string) (*dist.Summary, error) {
	b, err := base64.StdEncoding.DecodeString(packed)
	if err != nil {
		return nil, err
	}
	out := new(dist.Summary)
	return out, out.UnmarshalBinary(b)
}

// ColumnNumbers samples a column's present values, or a descriptor's, with
// event_time in [from, to), by a hash of where rows came from, so that the same
// rows give the same sample.
func (s *Store) ColumnNumbers(ctx context.Context, sub Subject, column string, anchor dist.Anchor, from, to time.Time, limit int) ([]float64, error) {
	t, err := s.subjectTable(sub)
	if err != nil {
		return nil, fmt.Errorf("sample %s: %w", column, err)
	}
	p := params{"from": micro(from), "to": micro(to)}
	c, err := t.quantity(column, anchor, "anchor", p)
	if err != nil || c.categorical {
		return nil, fmt.Errorf("%w: %s has no numeric column %q", ErrUnknown, t.schema.Subject, column)
	}
	rows, err := s.query(ctx, fmt.Sprintf("SELECT assumeNotNull(CAST(%[1]s, 'Nullable(Float64)')) FROM %[2]s WHERE %[3]s%[5]s AND isNotNull(%[1]s) ORDER BY cityHash64(_partition, _offset, _index) LIMIT %[4]d",
		c.value, s.ref(t.name), inRange("event_time"), limit, c.where), p)
	if err != nil {
		return nil, fmt.Errorf("sample %s: %w", column, err)
	}
	defer rows.Close()
	var out []float64
	for rows.Next() {
		var x float64
		if err := rows.Scan(&x); err != nil {
			return nil, fmt.Errorf("sample %s: %w", column, err)
		}
		out = append(out, x)
	}
	return out, rows.Err()
}
