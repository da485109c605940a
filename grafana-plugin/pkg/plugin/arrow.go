package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/kedge-ml/kedge/query"
)

// arrowStream is the form in which answers are asked for: columns as they lie in
// memory, which costs a tenth of reading them as text.
const arrowStream = "application/vnd.apache.arrow.stream"

// ask sends one question, the text of a request of a kind, and reads its answer.
// A refusal is a *[query.Error].
func ask(ctx context.Context, c *query.Client, kind string, body []byte) ([]query.Frame, error) {
	res, err := c.Send(ctx, http.MethodPost, "/v1/query", arrowStream, body)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", kind, err)
	}
	frames, err := readFrames(res)
	if err != nil {
		return nil, fmt.Errorf("query %s: the answer of %s is not Arrow: is it a Kedge, of this version? %w", kind, c.Server, err)
	}
	return frames, nil
}

// readFrames reads one Arrow stream per frame, one after the other.
func readFrames(b []byte) ([]query.Frame, error) {
	var out []query.Frame
	for in := bytes.NewReader(b); in.Len() > 0; {
		f, err := readFrame(in)
		if err != nil {
			return nil, fmt.Errorf("frame %d: %w", len(out), err)
		}
		out = append(out, f)
	}
	return out, nil
}

func readFrame(in *bytes.Reader) (f query.Frame, err error) {
	defer func() { // the reader answers some broken streams so
		if p := recover(); p != nil {
			err = fmt.Errorf("broken stream: %v", p)
		}
	}()
	r, err := ipc.NewReader(in)
	if err != nil {
		return f, err
	}
	defer r.Release()
	meta := r.Schema().Metadata()
	text := func(key string) string { v, _ := meta.GetValue(key); return v }
	f.Name, f.Type = text("name"), query.FrameType(text("type"))
	f.Revision, _ = strconv.ParseUint(text("revision"), 10, 64) // 0 if it says none
	if n := text("notices"); n != "" {
		if err := json.Unmarshal([]byte(n), &f.Notices); err != nil {
			return f, fmt.Errorf("notices: %w", err)
		}
	}
	if !r.Next() {
		return f, fmt.Errorf("stream %q without a batch: %w", f.Name, r.Err())
	}
	rec := r.RecordBatch()
	for i, field := range r.Schema().Fields() {
		c, err := readColumn(field, rec.Column(i))
		if err != nil {
			return f, fmt.Errorf("column %q: %w", field.Name, err)
		}
		f.Columns = append(f.Columns, c)
	}
	if r.Next() {
		return f, fmt.Errorf("stream %q has a second batch", f.Name)
	}
	return f, r.Err()
}

func readColumn(field arrow.Field, values arrow.Array) (c query.Column, err error) {
	c.Name, c.Nullable = field.Name, field.Nullable
	for i, key := range field.Metadata.Keys() {
		v := field.Metadata.Values()[i]
		switch label, is := strings.CutPrefix(key, "label:"); {
		case is:
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[label] = v
		case key == "type":
			c.Type = query.ColumnType(v)
		case key == "unit":
			c.Unit = v
		case key == "display":
			c.Display = v
		case key == "thresholds":
			if err := json.Unmarshal([]byte(v), &c.Thresholds); err != nil {
				return c, fmt.Errorf("thresholds: %w", err)
			}
		}
	}
	c.Values, err = readValues(c.Type, c.Nullable, values)
	return c, err
}

// readValues takes the values of a column. Numbers that are never missing stay
// where the stream has them: the collector keeps that memory, and nobody writes
// to it.
func readValues(t query.ColumnType, nullable bool, values arrow.Array) (any, error) {
	switch v := values.(type) {
	case *array.Timestamp:
		raw := v.TimestampValues()
		return orNulls(nullable, v, func(i int) time.Time { return time.UnixMicro(int64(raw[i])).UTC() }), nil
	case *array.Float64:
		raw := v.Float64Values()
		if !nullable && len(raw) > 0 {
			return raw, nil
		}
		return orNulls(nullable, v, func(i int) float64 { return raw[i] }), nil
	case *array.Int64:
		raw := v.Int64Values()
		if !nullable && len(raw) > 0 {
			return raw, nil
		}
		return orNulls(nullable, v, func(i int) int64 { return raw[i] }), nil
	case *array.Uint64:
		raw := v.Uint64Values()
		if !nullable && len(raw) > 0 {
			return raw, nil
		}
		return orNulls(nullable, v, func(i int) uint64 { return raw[i] }), nil
	case *array.Boolean:
		return orNulls(nullable, v, v.Value), nil
	case *array.String:
		if t == query.RawJSON {
			return orNulls(false, v, func(i int) json.RawMessage { return json.RawMessage(v.Value(i)) }), nil
		}
		return orNulls(nullable, v, func(i int) string { return strings.Clone(v.Value(i)) }), nil
	}
	return nil, fmt.Errorf("values of type %v are none of Kedge's", values.DataType())
}

// orNulls copies values out of the stream's memory: []T, or []*T into one block
// where a value may be missing.
func orNulls[T any](nullable bool, values arrow.Array, at func(int) T) any {
	block := make([]T, values.Len())
	for i := range block {
		block[i] = at(i)
	}
	if !nullable {
		return block
	}
	out := make([]*T, len(block))
	for i := range out {
		if values.IsValid(i) {
			out[i] = &block[i]
		}
	}
	return out
}
