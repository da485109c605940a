package web

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// Media types that frames can be had in.
const (
	TypeJSON  = "application/json"
	TypeArrow = "application/vnd.apache.arrow.stream"
	TypeCSV   = "text/csv"
)

// Negotiate picks the media type for frames from an Accept header. Without a
// preference it is JSON.
func Negotiate(accept string) (string, error) {
	if strings.TrimSpace(accept) == "" {
		return TypeJSON, nil
	}
	best, bestQ := "", 0.0
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, ok := params["q"]; ok {
			q, _ = strconv.ParseFloat(v, 64)
		}
		if t := offered(media); t != "" && q > bestQ {
			best, bestQ = t, q
		}
	}
	if best == "" {
		return "", Errorf(http.StatusNotAcceptable, CodeAccept, "Accept %q: want %s, %s or %s", accept, TypeJSON, TypeArrow, TypeCSV)
	}
	return best, nil
}

func offered(media string) string {
	switch media {
	case "*/*", "application/*", TypeJSON:
		return TypeJSON
	case TypeArrow, "application/vnd.apache.arrow.file":
		return TypeArrow
	case TypeCSV, "text/*":
		return TypeCSV
	}
	return ""
}

// EncodeFrames writes frames in one of the media types. Arrow and CSV put one
// stream or table per frame after the other, CSV with an empty line between.
func EncodeFrames(media string, frames []query.Frame) ([]byte, error) {
	var buf bytes.Buffer
	var err error
	switch media {
	case TypeJSON:
		if frames == nil {
			frames = []query.Frame{}
		}
		err = json.NewEncoder(&buf).Encode(query.Answer{Frames: frames})
	case TypeArrow:
		err = each(frames, func(_ int, f *query.Frame) error { return writeArrow(&buf, f) })
	case TypeCSV:
		err = each(frames, func(i int, f *query.Frame) error {
			if i > 0 {
				buf.WriteByte('\n')
			}
			return WriteCSV(&buf, f)
		})
	default:
		err = fmt.Errorf("unknown media type %q", media)
	}
	if err != nil {
		return nil, fmt.Errorf("encode frames: %w", err)
	}
	return buf.Bytes(), nil
}

func each(frames []query.Frame, do func(int, *query.Frame) error) error {
	for i := range frames {
		if err := do(i, &frames[i]); err != nil {
			return fmt.Errorf("frame %q: %w", frames[i].Name, err)
		}
	}
	return nil
}

// WriteCSV writes one frame with a header line. Nulls are empty, times are RFC
// 3339 in UTC. What tells one series of several from the others is a column of
// its own, before the others.
func WriteCSV(w io.Writer, f *query.Frame) error {
	cw := csv.NewWriter(w)
	names, series := seriesOf(f)
	head := slices.Clone(names)
	for _, c := range f.Columns {
		head = append(head, c.Name)
	}
	if err := cw.Write(head); err != nil {
		return err
	}
	row := slices.Concat(series, make([]string, len(f.Columns)))
	for r := range f.Rows() {
		for i := range f.Columns {
			row[len(series)+i] = Text(&f.Columns[i], r)
		}
		if err := cw.Write(row); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}

// seriesOf are the names and values of the labels of a frame that is one series.
func seriesOf(f *query.Frame) (names, values []string) {
	if f.Type != query.TimeSeriesMulti {
		return nil, nil
	}
	for _, c := range f.Columns {
		if len(c.Labels) == 0 {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
			names, values = append(names, k), append(values, c.Labels[k])
		}
		return names, values
	}
	return nil, nil
}

// Text writes one value of a column for people and CSV; null is "".
func Text(c *query.Column, row int) string {
	switch v := c.Values.(type) {
	case []time.Time:
		return timeText(v[row])
	case []*time.Time:
		return orEmpty(v[row], timeText)
	case []float64:
		return floatText(v[row])
	case []*float64:
		return orEmpty(v[row], floatText)
	case []int64:
		return strconv.FormatInt(v[row], 10)
	case []*int64:
		return orEmpty(v[row], func(n int64) string { return strconv.FormatInt(n, 10) })
	case []uint64:
		return strconv.FormatUint(v[row], 10)
	case []*uint64:
		return orEmpty(v[row], func(n uint64) string { return strconv.FormatUint(n, 10) })
	case []string:
		return v[row]
	case []*string:
		return orEmpty(v[row], func(s string) string { return s })
	case []bool:
		return strconv.FormatBool(v[row])
	case []*bool:
		return orEmpty(v[row], strconv.FormatBool)
	case []json.RawMessage:
		return string(v[row])
	}
	return ""
}

func orEmpty[T any](v *T, text func(T) string) string {
	if v == nil {
		return ""
	}
	return text(*v)
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
func floatText(f float64) string  { return strconv.FormatFloat(f, 'g', -1, 64) }
