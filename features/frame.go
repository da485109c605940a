package features

import (
	"encoding/base64"
	"math"
	"strconv"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/stream"
)

// frame is a pushed data frame: named columns of equal length.
type frame struct {
	columns *node
	rows    int
}

func newFrame(df *node) (*frame, error) {
	f := &frame{columns: df}
	for i := range df.items {
		c := &df.items[i]
		if c.kind != kindArray {
			return nil, badRequest("df: column %s is not a list of values, one per row", df.names[i])
		}
		if i > 0 && len(c.items) != f.rows {
			return nil, badRequest("All arrays must be of the same length")
		}
		f.rows = len(c.items)
	}
	return f, nil
}

// envelopes are the frame's rows as messages for one view. It fails as a whole.
// What is later than latest, µs, the decoder would refuse.
func (f *frame) envelopes(v *View, t *pushTarget, latest int64) ([]stream.Message, error) {
	if err := f.checkColumns(v, t); err != nil {
		return nil, err
	}
	msgs := make([]stream.Message, f.rows)
	for row := range msgs {
		value, key, err := f.envelope(v, t, row, latest)
		if err != nil {
			return nil, err
		}
		msgs[row] = stream.Message{Key: key, Value: value}
	}
	return msgs, nil
}

// checkColumns wants every feature, key and time column, in Feast's words.
func (f *frame) checkColumns(v *View, t *pushTarget) error {
	var missing []string
	for _, c := range v.Schema.Values() {
		if f.columns.member(c.Name) == nil {
			missing = append(missing, c.Name)
		}
	}
	if missing != nil {
		return badRequest("%s not in index", pythonList(missing))
	}
	need := []string{}
	for _, c := range v.Schema.Keys() {
		need = append(need, c.Name)
	}
	need = append(need, t.timestamp)
	if t.createdNeeded {
		need = append(need, t.created)
	}
	for _, name := range need {
		if f.columns.member(name) == nil {
			return badRequest("Field \"%s\" does not exist in schema", name)
		}
	}
	return nil
}

func (f *frame) cell(column string, row int) *node { return &f.columns.member(column).items[row] }

func (f *frame) envelope(v *View, t *pushTarget, row int, latest int64) (value, key []byte, err error) {
	value = appendString([]byte(`{"view":`), v.Name)
	value = append(value, `,"key":`...)
	start := len(value)
	for i, c := range v.Schema.Keys() {
		value = append(value, "{,"[b2i(i > 0)])
		n := f.cell(c.Name, row)
		if n.kind == kindNull {
			return nil, nil, badRequest("Entity key %s is null in row %d: a key has no null", c.Name, row)
		}
		if value, err = appendCell(append(appendString(value, c.Name), ':'), n, c, row); err != nil {
			return nil, nil, err
		}
	}
	value = append(value, '}')
	key = value[start:len(value):len(value)]
	if value, err = f.appendTimes(value, t, row, latest); err != nil {
		return nil, nil, err
	}
	value = append(value, `,"values":{`...)
	for i, c := range v.Schema.Values() {
		if i > 0 {
			value = append(value, ',')
		}
		if value, err = appendCell(append(appendString(value, c.Name), ':'), f.cell(c.Name, row), c, row); err != nil {
			return nil, nil, err
		}
	}
	return append(value, `}}`...), key, nil
}

func (f *frame) appendTimes(dst []byte, t *pushTarget, row int, latest int64) ([]byte, error) {
	at, err := frameTime(f.cell(t.timestamp, row), t.timestamp, row)
	if err != nil {
		return nil, err
	}
	if at > latest {
		return nil, badRequest("%s in row %d is further ahead of the server's clock than ingest.future_bound lets it be", t.timestamp, row)
	}
	dst = appendEnvelopeTime(append(dst, `,"event_time":`...), at)
	if c := f.columns.member(t.created); c != nil && c.items[row].kind != kindNull {
		created, err := frameTime(&c.items[row], t.created, row)
		if err != nil {
			return nil, err
		}
		dst = appendEnvelopeTime(append(dst, `,"created":`...), created)
	}
	return dst, nil
}

// frameTime reads an ISO time. A bare integer is refused: Feast takes it for
// nanoseconds and stores 1970 without a word.
func frameTime(n *node, column string, row int) (int64, error) {
	if n.kind != kindString {
		return 0, badRequest("%s in row %d: %s is not an ISO 8601 time", column, row, n.appendJSON(nil))
	}
	t, err := looseTime(n.text)
	if err != nil {
		return 0, badRequest("%s in row %d: Unknown string format: %s", column, row, n.text)
	}
	return t, nil
}

// appendCell writes a value as envelopes have it.
func appendCell(dst []byte, n *node, f event.Field, row int) ([]byte, error) {
	if n.kind == kindNull {
		return append(dst, "null"...), nil
	}
	if !f.Type.List {
		out, ok := appendScalarCell(dst, n, f.Type.Elem)
		if !ok {
			return nil, badCell(n, f, row)
		}
		return out, nil
	}
	if n.kind != kindArray {
		return nil, badCell(n, f, row)
	}
	dst = append(dst, '[')
	for i := range n.items {
		if i > 0 {
			dst = append(dst, ',')
		}
		var ok bool
		if item := &n.items[i]; item.kind == kindNull {
			dst = append(dst, "null"...)
		} else if dst, ok = appendScalarCell(dst, item, f.Type.Elem); !ok {
			return nil, badCell(n, f, row)
		}
	}
	return append(dst, ']'), nil
}

func badCell(n *node, f event.Field, row int) error {
	text := n.appendJSON(nil)
	if len(text) > 80 {
		text = append(text[:77], "..."...)
	}
	return badRequest("column %s in row %d: %s is no value of type %s", f.Name, row, text, f.Type)
}

func appendScalarCell(dst []byte, n *node, t event.Type) ([]byte, bool) {
	switch t {
	case event.Bool:
		return append(dst, n.raw...), n.kind == kindBool
	case event.Int32, event.Int64:
		i, ok := n.whole()
		return strconv.AppendInt(dst, i, 10), ok && (t == event.Int64 || i == int64(int32(i)))
	case event.Float32, event.Float64:
		f, ok := n.float()
		if t == event.Float32 && math.Abs(f) > math.MaxFloat32 && !math.IsInf(f, 0) {
			return nil, false
		}
		return event.AppendFloat(dst, f), ok
	case event.Timestamp:
		if n.kind == kindInteger {
			if n.integer > event.MaxTime/1e6 || n.integer < event.MinTime/1e6 {
				return nil, false
			}
			return appendEnvelopeTime(dst, n.integer*1e6), n.fits
		}
		at, err := looseTime(n.text)
		return appendEnvelopeTime(dst, at), n.kind == kindString && err == nil
	case event.Bytes:
		_, err := base64.StdEncoding.DecodeString(n.text)
		return appendString(dst, n.text), n.kind == kindString && err == nil
	case event.JSON:
		return n.appendJSON(dst), true
	case event.String:
		return appendString(dst, n.text), n.kind == kindString
	}
	return dst, false // a column whose type nobody has seen yet
}

// whole is a number without fraction that an int64 holds. A data frame turns
// integers into floats as soon as one is missing, so that 5.0 is 5.
func (n *node) whole() (int64, bool) {
	switch n.kind {
	case kindInteger:
		return n.integer, n.fits
	case kindFloat:
		f, ok := parseFloat(n.raw)
		i := int64(f)
		return i, ok && float64(i) == f && math.Abs(f) <= 1<<53
	}
	return 0, false
}

// float is a number, or one of the words for what no JSON number can state.
func (n *node) float() (float64, bool) {
	switch n.kind {
	case kindInteger, kindFloat:
		return parseFloat(n.raw)
	case kindString:
		return finiteWord([]byte(n.text))
	}
	return 0, false
}
