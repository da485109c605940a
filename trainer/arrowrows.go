package trainer

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/kedge-ml/kedge/features"
)

// matrixWriter takes a point-in-time join's records into a [Builder]. It is a
// [features.FrameWriter].
type matrixWriter struct {
	data     DataSpec
	asked    []features.Feature
	versions map[string]uint64
	limits   BuilderConfig

	builder                   *Builder
	fields                    []Field
	inputs                    []int
	time, label, class, weigh int
	texts                     bool // the label is a class
	chunk                     Chunk
	spare                     [][]float64 // per input: numbers of a record that has nulls
}

// inputPrefix stands before the recorded inputs of predictions.
const inputPrefix = "input__"

// Open finds the inputs, the label and the weight among the columns.
func (w *matrixWriter) Open(s *arrow.Schema) error {
	at := func(name string) int {
		return slices.IndexFunc(s.Fields(), func(f arrow.Field) bool { return f.Name == name })
	}
	w.time, w.label, w.class, w.weigh = at("event_timestamp"), at("label"), at("label_class"), at("weight")
	if w.time < 0 || w.label < 0 {
		return fmt.Errorf("%w: the rows have no event_timestamp or label", ErrParam)
	}
	for _, f := range w.asked {
		if !slices.Contains(w.data.Drop, f.Column) {
			field := w.field(f.Column, f.Type.String())
			field.View = f.View
			for _, kind := range []string{"FeatureView", "WindowView", "OnDemandView"} {
				field.ViewVersion = max(field.ViewVersion, w.versions[kind+"/"+f.View])
			}
			w.inputs, w.fields = append(w.inputs, at(f.Column)), append(w.fields, field)
		}
	}
	if len(w.asked) == 0 {
		for i, f := range s.Fields() {
			name, ok := strings.CutPrefix(f.Name, inputPrefix)
			if !ok || slices.Contains(w.data.Drop, name) {
				continue
			}
			kind, err := arrowKind(f)
			if err != nil {
				return err
			}
			w.inputs, w.fields = append(w.inputs, i), append(w.fields, w.field(name, kind))
		}
	}
	if i := slices.Index(w.inputs, -1); i >= 0 {
		return fmt.Errorf("%w: the join answered no column %q", ErrParam, w.fields[i].Name)
	}
	return nil
}

func (w *matrixWriter) field(name, kind string) Field {
	return Field{Name: name, Type: kind, Category: slices.Contains(w.data.Categories, name), Monotone: w.data.Monotone[name]}
}

// arrowKind is a column's type as definitions spell it.
func arrowKind(f arrow.Field) (string, error) {
	switch f.Type.ID() {
	case arrow.BOOL:
		return "Bool", nil
	case arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32:
		return "Int64", nil
	case arrow.FLOAT32, arrow.FLOAT64:
		return "Float64", nil
	case arrow.STRING, arrow.LARGE_STRING:
		return "String", nil
	case arrow.TIMESTAMP:
		return "Timestamp", nil
	}
	return "", fmt.Errorf("%w: input %q is of type %s: drop it, or derive a number or a category from it", ErrType, strings.TrimPrefix(f.Name, inputPrefix), f.Type)
}

// Write takes one record's rows.
func (w *matrixWriter) Write(r arrow.RecordBatch) error {
	n := int(r.NumRows())
	if n == 0 {
		return nil
	}
	if err := w.begin(r); err != nil {
		return err
	}
	if w.spare == nil {
		w.spare, w.chunk.Columns = make([][]float64, len(w.inputs)), make([]ChunkColumn, len(w.inputs))
	}
	chunk := Chunk{Columns: w.chunk.Columns, Time: w.chunk.Time[:0]}
	var err error
	for i, at := range w.inputs {
		if v, ok := r.Column(at).(*array.Float64); ok { // most are
			chunk.Columns[i], w.spare[i] = floats(v, w.spare[i])
		} else if chunk.Columns[i], err = arrowColumn(r.Column(at), w.fields[i].Name); err != nil {
			return err
		}
	}
	label := w.label
	if w.texts && w.class >= 0 {
		label = w.class
	}
	if chunk.Label, err = arrowColumn(r.Column(label), "label"); err != nil {
		return err
	}
	times, err := arrowColumn(r.Column(w.time), "event_timestamp")
	if err != nil {
		return err
	}
	for _, v := range times.Numbers {
		chunk.Time = append(chunk.Time, int64(v)) // microseconds stay below 2^53 until the year 2255
	}
	w.chunk = chunk
	if w.weigh >= 0 {
		weights, err := arrowColumn(r.Column(w.weigh), "weight")
		if err != nil {
			return err
		}
		chunk.Weight = weights.Numbers
	}
	return w.builder.Append(chunk)
}

// begin settles from the first rows whether the label is a class or a number.
func (w *matrixWriter) begin(r arrow.RecordBatch) (err error) {
	if w.builder != nil {
		return nil
	}
	label := r.Column(w.label)
	kind, err := arrowKind(arrow.Field{Name: "label", Type: label.DataType()})
	if err != nil {
		return err
	}
	w.texts = kind == "String" || w.class >= 0 && label.NullN() == label.Len()
	if w.texts {
		kind = "String"
	}
	w.builder, err = NewBuilder(w.fields, kind, w.limits)
	return err
}

// Close has nothing to do: the builder has the rows.
func (w *matrixWriter) Close() error { return nil }

// floats views a column's values where none is null, and else copies them into
// spare memory: a builder keeps neither.
func floats(v *array.Float64, spare []float64) (ChunkColumn, []float64) {
	values := v.Float64Values()
	if v.NullN() == 0 {
		return ChunkColumn{Numbers: values}, spare
	}
	spare = append(spare[:0], values...)
	for i := range spare {
		if v.IsNull(i) {
			spare[i] = math.NaN()
		}
	}
	return ChunkColumn{Numbers: spare}, spare
}

// arrowColumn copies a column's values; what is null is missing.
func arrowColumn(a arrow.Array, name string) (out ChunkColumn, err error) {
	n := a.Len()
	number := func(at func(int) float64) ChunkColumn {
		v := make([]float64, n)
		for i := range v {
			if v[i] = math.NaN(); a.IsValid(i) {
				v[i] = at(i)
			}
		}
		return ChunkColumn{Numbers: v}
	}
	text := func(at func(int) string) ChunkColumn {
		c := ChunkColumn{Texts: make([]string, n), Missing: make([]bool, n)}
		for i := range n {
			if c.Missing[i] = a.IsNull(i); !c.Missing[i] {
				c.Texts[i] = strings.Clone(at(i)) // the record's memory ends with it
			}
		}
		return c
	}
	switch v := a.(type) {
	case *array.Float64:
		return number(v.Value), nil
	case *array.Float32:
		return number(func(i int) float64 { return float64(v.Value(i)) }), nil
	case *array.Int64:
		return number(func(i int) float64 { return float64(v.Value(i)) }), nil
	case *array.Int32:
		return number(func(i int) float64 { return float64(v.Value(i)) }), nil
	case *array.Uint8:
		return number(func(i int) float64 { return float64(v.Value(i)) }), nil
	case *array.Boolean:
		return number(func(i int) float64 {
			if v.Value(i) {
				return 1
			}
			return 0
		}), nil
	case *array.Timestamp:
		unit := v.DataType().(*arrow.TimestampType).Unit
		return number(func(i int) float64 { return float64(v.Value(i).ToTime(unit).UnixMicro()) }), nil
	case *array.String:
		return text(v.Value), nil
	case *array.LargeString:
		return text(v.Value), nil
	}
	return out, fmt.Errorf("%w: column %q is of type %s", ErrType, name, a.DataType())
}
