package event

import "iter"

// Value is one value of a column. The zero Value is null.
type Value struct {
	Type  ColumnType // Unknown: null
	Int   int64      // Bool (0 or 1), Int32, Int64, Timestamp (µs)
	Float float64    // Float32, Float64
	Text  string     // String; Bytes (as they are); JSON (text)
	List  []Value    // of List types
}

// NamedValue is a value under its column's name.
type NamedValue struct {
	Name  string
	Value Value
}

// Float returns a Float64 value.
func Float(f float64) Value { return Value{Type: ColumnType{Elem: Float64}, Float: f} }

// Int returns an Int64 value.
func Int(i int64) Value { return Value{Type: ColumnType{Elem: Int64}, Int: i} }

// Text returns a String value.
func Text(s string) Value { return Value{Type: ColumnType{Elem: String}, Text: s} }

// Flag returns a Bool value.
func Flag(b bool) Value {
	v := Value{Type: ColumnType{Elem: Bool}}
	if b {
		v.Int = 1
	}
	return v
}

// Time returns a Timestamp value; micros are µs since the Unix epoch.
func Time(micros int64) Value { return Value{Type: ColumnType{Elem: Timestamp}, Int: micros} }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.Type == ColumnType{} }

// Position says where a row came from. Encoders do not write it.
type Position struct {
	Partition int32
	Offset    int64
	Index     int32
	Epoch     int32
}

// FeatureRow is one feature event. Times are µs; a zero Created or KnownAt is
// not written, and read as EventTime or the broker's time.
type FeatureRow struct {
	Position
	View      string
	Version   int // of the view; 0 is not written
	Key       []NamedValue
	EventTime int64
	Created   int64
	KnownAt   int64
	ID        string
	Trace     string
	Values    []NamedValue // nulls included when read from a batch
	Overflow  string       // JSON object; when written, its members join Values
	Delete    bool
}

// NamedFloat is a map entry.
type NamedFloat struct {
	Name  string
	Value float64
}

// NamedText is a map entry.
type NamedText struct{ Name, Value string }

// NamedTime is a map entry; Time in µs.
type NamedTime struct {
	Name string
	Time int64
}

// Output is what a model said: any of its fields.
type Output struct {
	Score     *float64
	Class     *string
	Value     *float64
	Scores    []NamedFloat
	Quantiles []NamedFloat
	Vector    []Value // Float64 or null
	Items     string  // JSON array
}

// Prediction is one prediction event.
type Prediction struct {
	Position
	Model        string
	Version      string
	ID           string
	EventTime    int64
	Created      int64
	KnownAt      int64
	Key          string // JSON object; empty if none
	Inputs       []NamedValue
	Overflow     string
	Output       Output
	Segments     []NamedText
	Variant      string
	FeatureTimes []NamedTime
	QueueMS      *float64
	FeaturesMS   *float64
	ComputeMS    *float64
	Threshold    *float64
	GroupID      string
	GroupPos     int32
	Attributions []NamedFloat
	Weight       float64 // 0 is written as 0; readers give 1 where none was stated
	Trace        string
}

// Label is one label event: of a prediction, or of a key at a time.
type Label struct {
	Position
	Model        string
	PredictionID string
	Key          string // JSON object; empty when by prediction
	EventTime    int64
	Created      int64
	KnownAt      int64
	ID           string
	Trace        string
	Number       *float64 // neither Number nor Class: withdrawn
	Class        *string
	Weight       float64
}

// FeatureRows yields the rows of a features batch.
func (b *Batch) FeatureRows() iter.Seq[FeatureRow] {
	return func(yield func(FeatureRow) bool) {
		for i := range b.Rows {
			if !yield(b.featureRow(i)) {
				return
			}
		}
	}
}

// Predictions yields the rows of a predictions batch.
func (b *Batch) Predictions() iter.Seq[Prediction] {
	return func(yield func(Prediction) bool) {
		for i := range b.Rows {
			if !yield(b.prediction(i)) {
				return
			}
		}
	}
}

// Labels yields the rows of a labels batch.
func (b *Batch) Labels() iter.Seq[Label] {
	return func(yield func(Label) bool) {
		for i := range b.Rows {
			if !yield(b.label(i)) {
				return
			}
		}
	}
}

func (b *Batch) position(i int) Position {
	return Position{
		Partition: b.Columns[ColPartition].Int32s[i],
		Offset:    b.Columns[ColOffset].Int64s[i],
		Index:     b.Columns[ColIndex].Int32s[i],
		Epoch:     b.Columns[ColEpoch].Int32s[i],
	}
}

func (b *Batch) featureRow(i int) FeatureRow {
	c := b.Columns
	return FeatureRow{
		Position: b.position(i), View: b.Schema.Subject, ID: c[ColID].text(i), Trace: c[ColTrace].text(i),
		EventTime: c[ColEventTime].Int64s[i], Created: c[ColCreated].Int64s[i], KnownAt: c[ColKnownAt].Int64s[i],
		Key: b.named(i, b.Schema.KeyStart(), b.Schema.ValueStart()), Values: b.named(i, b.Schema.ValueStart(), len(c)),
		Overflow: c[ColOverflow].text(i), Delete: c[FeatureDelete].Bools[i] != 0,
	}
}

func (b *Batch) prediction(i int) Prediction {
	c := b.Columns
	return Prediction{
		Position: b.position(i), Model: b.Schema.Subject, Version: c[PredVersion].text(i), ID: c[ColID].text(i),
		EventTime: c[ColEventTime].Int64s[i], Created: c[ColCreated].Int64s[i], KnownAt: c[ColKnownAt].Int64s[i],
		Key: c[PredKey].text(i), Inputs: b.named(i, b.Schema.ValueStart(), len(c)), Overflow: c[ColOverflow].text(i),
		Output: Output{
			Score: c[PredScore].float(i), Class: c[PredClass].optText(i), Value: c[PredValue].float(i),
			Scores: c[PredScores].floats(i), Quantiles: c[PredQuantiles].floats(i),
			Vector: c[PredVector].Value(i).List, Items: c[PredItems].text(i),
		},
		Segments: c[PredSegments].texts(i), Variant: c[PredVariant].text(i), FeatureTimes: c[PredFeatureTimes].times(i),
		QueueMS: c[PredQueueMS].float(i), FeaturesMS: c[PredFeaturesMS].float(i), ComputeMS: c[PredComputeMS].float(i),
		Threshold: c[PredThreshold].float(i), GroupID: c[PredGroupID].text(i), GroupPos: c[PredGroupPos].Int32s[i],
		Attributions: c[PredAttributions].floats(i), Weight: c[PredWeight].Float64s[i], Trace: c[ColTrace].text(i),
	}
}

func (b *Batch) label(i int) Label {
	c := b.Columns
	return Label{
		Position: b.position(i), Model: b.Schema.Subject, PredictionID: c[LabelPredictionID].text(i), Key: c[LabelKey].text(i),
		EventTime: c[ColEventTime].Int64s[i], Created: c[ColCreated].Int64s[i], KnownAt: c[ColKnownAt].Int64s[i],
		ID: c[ColID].text(i), Trace: c[ColTrace].text(i),
		Number: c[LabelNumber].float(i), Class: c[LabelClass].optText(i), Weight: c[LabelWeight].Float64s[i],
	}
}

func (b *Batch) named(row, from, to int) []NamedValue {
	list := make([]NamedValue, 0, to-from)
	for i := from; i < to; i++ {
		list = append(list, NamedValue{b.Schema.Fields[i].Name, b.Columns[i].Value(row)})
	}
	return list
}

// Value returns row i. Strings are copied. Maps have no Value.
func (c *Column) Value(i int) Value {
	v := Value{Type: c.Type}
	if c.Type.List {
		from, to := c.Span(i)
		for k := from; k < to; k++ {
			v.List = append(v.List, c.Items.Value(int(k)))
		}
		return v
	}
	if c.Null(i) {
		return Value{}
	}
	switch c.Type.Elem {
	case Bool:
		v.Int = int64(c.Bools[i])
	case Int32:
		v.Int = int64(c.Int32s[i])
	case Int64, Timestamp:
		v.Int = c.Int64s[i]
	case Float32:
		v.Float = float64(c.Float32s[i])
	case Float64:
		v.Float = c.Float64s[i]
	default:
		v.Text = c.text(i)
	}
	return v
}

func (c *Column) text(i int) string { return string(c.Str(i)) }

func (c *Column) optText(i int) *string {
	if c.Null(i) {
		return nil
	}
	s := c.text(i)
	return &s
}

func (c *Column) float(i int) *float64 {
	if c.Null(i) {
		return nil
	}
	f := c.Float64s[i]
	return &f
}

func (c *Column) floats(i int) (list []NamedFloat) {
	for from, to := c.Span(i); from < to; from++ {
		list = append(list, NamedFloat{c.Names.text(int(from)), c.Items.Float64s[from]})
	}
	return list
}

func (c *Column) texts(i int) (list []NamedText) {
	for from, to := c.Span(i); from < to; from++ {
		list = append(list, NamedText{c.Names.text(int(from)), c.Items.text(int(from))})
	}
	return list
}

func (c *Column) times(i int) (list []NamedTime) {
	for from, to := c.Span(i); from < to; from++ {
		list = append(list, NamedTime{c.Names.text(int(from)), c.Items.Int64s[from]})
	}
	return list
}
