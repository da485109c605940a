package event

import (
	"fmt"
	"strings"
)

// Kind says which of the three streams an event belongs to.
type Kind uint8

// The three streams.
const (
	Features Kind = iota + 1
	Predictions
	Labels
)

// String returns the word that topic names use.
func (k Kind) String() string {
	switch k {
	case Features:
		return "features"
	case Predictions:
		return "predictions"
	case Labels:
		return "labels"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind reads the word that [Kind.String] writes.
func ParseKind(s string) (Kind, error) {
	for _, k := range []Kind{Features, Predictions, Labels} {
		if s == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("unknown event kind %q: want features, predictions or labels", s)
}

// Type is the type of one column's elements.
type Type uint8

// Column types. Unknown is a column that was met only as null and waits for a
// type; it has no storage yet.
const (
	Unknown Type = iota
	Bool
	Int32
	Int64
	Float32
	Float64
	String
	Timestamp // microseconds since the Unix epoch
	Bytes
	JSON      // one JSON value as text
	FloatMap  // string → Float64
	StringMap // string → String
	TimeMap   // string → Timestamp
)

var typeNames = [...]string{"Unknown", "Bool", "Int32", "Int64", "Float32", "Float64", "String", "Timestamp", "Bytes", "Json", "FloatMap", "StringMap", "TimeMap"}

// String returns the type's name as definitions spell it.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ColumnType is an element type, or a list of it.
type ColumnType struct {
	Elem Type
	List bool
}

// String returns "Float64" or "List(Float64)".
func (t ColumnType) String() string {
	if t.List {
		return "List(" + t.Elem.String() + ")"
	}
	return t.Elem.String()
}

// ParseType reads what [ColumnType.String] writes.
func ParseType(s string) (ColumnType, error) {
	elem, list := s, false
	if inner, ok := strings.CutPrefix(s, "List("); ok {
		elem, list = strings.TrimSuffix(inner, ")"), true
	}
	for i, n := range typeNames {
		if n == elem {
			return ColumnType{Type(i), list}, nil
		}
	}
	return ColumnType{}, fmt.Errorf("unknown column type %q: want Bool, Int32, Int64, Float32, Float64, String, Timestamp, Bytes, Json or List(…)", s)
}

// MarshalText writes the type as definitions spell it.
func (t ColumnType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the type as definitions spell it.
func (t *ColumnType) UnmarshalText(b []byte) (err error) {
	*t, err = ParseType(string(b))
	return err
}

// Role says what a column is for; it also decides the column's name in the
// table, so that a feature called "id" never meets the envelope's own id.
type Role uint8

// Column roles.
const (
	System    Role = iota // the envelope's and the pipeline's own columns
	KeyRole               // a part of the entity key; stored as k_<name>
	ValueRole             // a feature or a model input; stored as v_<name>
)

// Field describes one column of a [Schema].
type Field struct {
	Name     string // as the producer writes it
	Type     ColumnType
	Role     Role
	Nullable bool
}

// ColumnName is the field's name in the table.
func (f Field) ColumnName() string {
	switch f.Role {
	case KeyRole:
		return "k_" + f.Name
	case ValueRole:
		return "v_" + f.Name
	}
	return f.Name
}

// Schema is the shape of one table: the fixed columns of its kind, then the
// key columns, then the value columns. A Schema is immutable; evolution makes
// a new one with the same TableID.
type Schema struct {
	Kind      Kind
	Namespace string
	Subject   string // view or model name
	TableID   uint64 // decides the table's name; from the registry
	Fields    []Field
	From      *FromSpec // of a view whose rows are an outside table's; else nil
	keys      int       // index of the first key field
	values    int       // index of the first value field
}

// NewSchema lays out the table of a subject.
func NewSchema(kind Kind, namespace, subject string, tableID uint64, keys, values []Field) *Schema {
	s := &Schema{Kind: kind, Namespace: namespace, Subject: subject, TableID: tableID}
	s.Fields = append(s.Fields, fixedFields(kind)...)
	s.keys = len(s.Fields)
	for _, f := range keys {
		f.Role, f.Nullable = KeyRole, false
		s.Fields = append(s.Fields, f)
	}
	s.values = len(s.Fields)
	for _, f := range values {
		f.Role, f.Nullable = ValueRole, true
		s.Fields = append(s.Fields, f)
	}
	return s
}

// Table is the table's name, without the database.
func (s *Schema) Table() string {
	return fmt.Sprintf("%s_%d", s.Kind, s.TableID)
}

// Keys returns the key fields, in definition order.
func (s *Schema) Keys() []Field { return s.Fields[s.keys:s.values] }

// Values returns the value fields, in definition order.
func (s *Schema) Values() []Field { return s.Fields[s.values:] }

// KeyStart and ValueStart index Fields (and [Batch.Columns]).
func (s *Schema) KeyStart() int { return s.keys }

// ValueStart is the index of the first value field.
func (s *Schema) ValueStart() int { return s.values }

// Fixed columns, in the order in which [Batch.Columns] holds them. Columns
// beyond ColAppended depend on the kind: see Pred* and Label*.
const (
	ColPartition = iota // Int32, Kafka partition
	ColOffset           // Int64, Kafka offset
	ColIndex            // Int32, position within the record (array explode)
	ColEpoch            // Int32, see contracts "exactly once"
	ColEventTime        // Timestamp
	ColCreated          // Timestamp, the producer's version of event_time
	ColKnownAt          // Timestamp, when Kedge could first know it
	ColID               // String, the producer's event id; empty if none
	ColTrace            // String, W3C trace id; empty if none
	ColOverflow         // JSON, members unknown to a declared definition; empty if none
	ColAppended         // Timestamp, when the broker appended the record; retention counts from it
	commonFields
)

// Feature rows.
const (
	FeatureDelete = commonFields + iota // Bool: a tombstone
)

// Predictions.
const (
	PredVersion      = commonFields + iota // String
	PredKey                                // JSON object of the entity key; empty if none
	PredScore                              // Float64, nullable
	PredClass                              // String, nullable
	PredValue                              // Float64, nullable
	PredScores                             // FloatMap
	PredQuantiles                          // FloatMap
	PredVector                             // List(Float64)
	PredItems                              // JSON array; empty if none
	PredSegments                           // StringMap
	PredVariant                            // String
	PredFeatureTimes                       // TimeMap
	PredQueueMS                            // Float64, nullable
	PredFeaturesMS                         // Float64, nullable
	PredComputeMS                          // Float64, nullable
	PredThreshold                          // Float64, nullable
	PredGroupID                            // String
	PredGroupPos                           // Int32
	PredAttributions                       // FloatMap
	PredWeight                             // Float64; 1 if absent
)

// Labels. ColID is the label event's own id.
const (
	LabelPredictionID = commonFields + iota // String; empty when the label is by key
	LabelKey                                // JSON object; empty when by prediction id
	LabelNumber                             // Float64, nullable
	LabelClass                              // String, nullable
	LabelWithdrawn                          // Bool: a null label withdraws the earlier one
	LabelWeight                             // Float64; 1 if absent
)

func fixedFields(kind Kind) []Field {
	f := []Field{
		{Name: "_partition", Type: ColumnType{Elem: Int32}},
		{Name: "_offset", Type: ColumnType{Elem: Int64}},
		{Name: "_index", Type: ColumnType{Elem: Int32}},
		{Name: "_epoch", Type: ColumnType{Elem: Int32}},
		{Name: "event_time", Type: ColumnType{Elem: Timestamp}},
		{Name: "created", Type: ColumnType{Elem: Timestamp}},
		{Name: "known_at", Type: ColumnType{Elem: Timestamp}},
		{Name: "id", Type: ColumnType{Elem: String}},
		{Name: "trace_id", Type: ColumnType{Elem: String}},
		{Name: "overflow", Type: ColumnType{Elem: JSON}},
		{Name: "appended_at", Type: ColumnType{Elem: Timestamp}},
	}
	nullable := func(name string, t Type) Field {
		return Field{Name: name, Type: ColumnType{Elem: t}, Nullable: true}
	}
	plain := func(name string, t Type) Field { return Field{Name: name, Type: ColumnType{Elem: t}} }
	switch kind {
	case Features:
		f = append(f, plain("deleted", Bool))
	case Predictions:
		f = append(f,
			plain("version", String), plain("key", JSON),
			nullable("score", Float64), nullable("class", String), nullable("value", Float64),
			plain("scores", FloatMap), plain("quantiles", FloatMap),
			Field{Name: "vector", Type: ColumnType{Elem: Float64, List: true}},
			plain("items", JSON), plain("segments", StringMap), plain("variant", String),
			plain("feature_times", TimeMap),
			nullable("queue_ms", Float64), nullable("features_ms", Float64), nullable("compute_ms", Float64),
			nullable("threshold", Float64), plain("group_id", String), plain("group_position", Int32),
			plain("attributions", FloatMap), plain("weight", Float64))
	case Labels:
		f = append(f,
			plain("prediction_id", String), plain("key", JSON),
			nullable("label", Float64), nullable("label_class", String),
			plain("withdrawn", Bool), plain("weight", Float64))
	}
	return f
}
