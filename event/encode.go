package event

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"
)

// AppendFeatureJSON appends the envelope of a feature row.
func AppendFeatureJSON(dst []byte, r FeatureRow) []byte {
	dst = AppendString(append(dst, `{"view":`...), r.View)
	if r.Version > 0 {
		dst = strconv.AppendInt(append(dst, `,"version":`...), int64(r.Version), 10)
	}
	dst = appendNamed(append(dst, `,"key":`...), r.Key, "")
	dst = appendTimes(dst, r.EventTime, r.Created, r.KnownAt)
	dst = appendText(dst, "id", r.ID)
	dst = appendText(dst, "trace", r.Trace)
	if r.Delete {
		dst = append(dst, `,"delete":true`...)
	}
	if !r.Delete || len(r.Values) > 0 {
		dst = appendNamed(append(dst, `,"values":`...), r.Values, r.Overflow)
	}
	return append(dst, '}')
}

// AppendPredictionJSON appends the envelope of a prediction.
func AppendPredictionJSON(dst []byte, r Prediction) []byte {
	dst = appendModel(dst, r.Model, r.Version)
	dst = AppendString(dst, r.ID)
	dst = appendTimes(dst, r.EventTime, r.Created, r.KnownAt)
	dst = appendRaw(dst, "key", r.Key)
	dst = appendNamed(append(dst, `,"inputs":`...), r.Inputs, r.Overflow)
	dst = appendOutput(append(dst, `,"output":`...), r.Output)
	return appendPredictionTail(dst, &r)
}

// appendModel begins a prediction, up to its id's value.
func appendModel(dst []byte, model, version string) []byte {
	dst = AppendString(append(dst, `{"model":`...), model)
	dst = AppendString(append(dst, `,"version":`...), version)
	return append(dst, `,"id":`...)
}

// appendPredictionTail appends what follows a prediction's output.
func appendPredictionTail(dst []byte, r *Prediction) []byte {
	if len(r.Segments) > 0 {
		dst = appendMap(append(dst, `,"segments":`...), r.Segments, func(dst []byte, e NamedText) []byte {
			return AppendString(appendMember(dst, e.Name), e.Value)
		})
	}
	dst = appendText(dst, "variant", r.Variant)
	if len(r.FeatureTimes) > 0 {
		dst = appendMap(append(dst, `,"feature_times":`...), r.FeatureTimes, func(dst []byte, e NamedTime) []byte {
			return appendQuotedTime(appendMember(dst, e.Name), e.Time)
		})
	}
	dst = appendLatency(dst, *r)
	dst = appendFloat(dst, "threshold", r.Threshold)
	if r.GroupID != "" || r.GroupPos != 0 {
		dst = AppendString(append(dst, `,"group":{"id":`...), r.GroupID)
		dst = append(strconv.AppendInt(append(dst, `,"position":`...), int64(r.GroupPos), 10), '}')
	}
	if len(r.Attributions) > 0 {
		dst = appendFloats(append(dst, `,"attributions":`...), r.Attributions)
	}
	if r.Weight != 1 {
		dst = AppendFloat(append(dst, `,"weight":`...), r.Weight)
	}
	return append(appendText(dst, "trace", r.Trace), '}')
}

// AppendLabelJSON appends the envelope of a label.
func AppendLabelJSON(dst []byte, r Label) []byte {
	dst = AppendString(append(dst, `{"model":`...), r.Model)
	dst = appendText(dst, "prediction_id", r.PredictionID)
	dst = appendRaw(dst, "key", r.Key)
	dst = append(dst, `,"label":`...)
	switch {
	case r.Class != nil:
		dst = AppendString(dst, *r.Class)
	case r.Number != nil:
		dst = AppendFloat(dst, *r.Number)
	default:
		dst = append(dst, "null"...)
	}
	dst = appendTimes(dst, r.EventTime, r.Created, r.KnownAt)
	dst = appendText(dst, "id", r.ID)
	if r.Weight != 1 {
		dst = AppendFloat(append(dst, `,"weight":`...), r.Weight)
	}
	return append(appendText(dst, "trace", r.Trace), '}')
}

func appendTimes(dst []byte, eventTime, created, knownAt int64) []byte {
	dst = appendQuotedTime(append(dst, `,"event_time":`...), eventTime)
	if created != 0 && created != eventTime {
		dst = appendQuotedTime(append(dst, `,"created":`...), created)
	}
	if knownAt != 0 {
		dst = appendQuotedTime(append(dst, `,"known_at":`...), knownAt)
	}
	return dst
}

func appendQuotedTime(dst []byte, micros int64) []byte {
	return append(AppendTime(append(dst, '"'), micros), '"')
}

func appendText(dst []byte, name, v string) []byte {
	if v == "" {
		return dst
	}
	return AppendString(appendMember(append(dst, ','), name), v)
}

func appendRaw(dst []byte, name, json string) []byte {
	if json == "" {
		return dst
	}
	return append(appendMember(append(dst, ','), name), json...)
}

func appendFloat(dst []byte, name string, v *float64) []byte {
	if v == nil {
		return dst
	}
	return AppendFloat(appendMember(append(dst, ','), name), *v)
}

func appendMember(dst []byte, name string) []byte { return append(AppendString(dst, name), ':') }

func appendOutput(dst []byte, o Output) []byte {
	start := len(dst)
	dst = appendFloat(dst, "score", o.Score)
	if o.Class != nil {
		dst = AppendString(append(dst, `,"class":`...), *o.Class)
	}
	dst = appendFloat(dst, "value", o.Value)
	if o.Scores != nil {
		dst = appendFloats(append(dst, `,"scores":`...), o.Scores)
	}
	if o.Quantiles != nil {
		dst = appendFloats(append(dst, `,"quantiles":`...), o.Quantiles)
	}
	if o.Vector != nil {
		dst = AppendValue(append(dst, `,"vector":`...), Value{Type: ColumnType{Float64, true}, List: o.Vector})
	}
	dst = appendRaw(dst, "items", o.Items)
	return closeObject(dst, start)
}

func appendLatency(dst []byte, r Prediction) []byte {
	if r.QueueMS == nil && r.FeaturesMS == nil && r.ComputeMS == nil {
		return dst
	}
	dst = append(dst, `,"latency":`...)
	start := len(dst)
	dst = appendFloat(dst, "queue", r.QueueMS)
	dst = appendFloat(dst, "features", r.FeaturesMS)
	dst = appendFloat(dst, "compute", r.ComputeMS)
	return closeObject(dst, start)
}

// closeObject turns members that each start with a comma, from start on, into
// an object.
func closeObject(dst []byte, start int) []byte {
	if len(dst) == start {
		return append(dst, "{}"...)
	}
	dst[start] = '{'
	return append(dst, '}')
}

func appendFloats(dst []byte, m []NamedFloat) []byte {
	return appendMap(dst, m, func(dst []byte, e NamedFloat) []byte {
		return AppendFloat(appendMember(dst, e.Name), e.Value)
	})
}

func appendMap[E any](dst []byte, m []E, entry func([]byte, E) []byte) []byte {
	start := len(dst)
	for _, e := range m {
		dst = entry(append(dst, ','), e)
	}
	return closeObject(dst, start)
}

// appendNamed appends an object; overflow is an object whose members follow.
func appendNamed(dst []byte, values []NamedValue, overflow string) []byte {
	start := len(dst)
	for _, v := range values {
		dst = AppendValue(appendMember(append(dst, ','), v.Name), v.Value)
	}
	if len(overflow) > len("{}") {
		dst = append(append(dst, ','), overflow[1:len(overflow)-1]...)
	}
	return closeObject(dst, start)
}

// AppendValue appends a value as the decoder reads it.
func AppendValue(dst []byte, v Value) []byte {
	if v.Type.List {
		start := len(dst)
		for _, e := range v.List {
			dst = AppendValue(append(dst, ','), e)
		}
		if len(dst) == start {
			return append(dst, "[]"...)
		}
		dst[start] = '['
		return append(dst, ']')
	}
	switch v.Type.Elem {
	case Bool:
		return strconv.AppendBool(dst, v.Int != 0)
	case Int32, Int64:
		return strconv.AppendInt(dst, v.Int, 10)
	case Float32:
		return appendFloatBits(dst, v.Float, 32)
	case Float64:
		return AppendFloat(dst, v.Float)
	case Timestamp:
		return appendQuotedTime(dst, v.Int)
	case String:
		return AppendString(dst, v.Text)
	case Bytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), []byte(v.Text)), '"')
	case JSON:
		return append(dst, v.Text...)
	}
	return append(dst, "null"...)
}

// AppendFloat appends the shortest text that reads back as f. Whole numbers
// keep a ".0", so that a column met first in them is not taken for integers.
func AppendFloat(dst []byte, f float64) []byte { return appendFloatBits(dst, f, 64) }

func appendFloatBits(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	abs := math.Abs(f)
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, bits)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// AppendString appends s as a JSON string. Bytes that are no UTF-8 become
// U+FFFD.
func AppendString[S string | []byte](dst []byte, s S) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(append(dst, s[from:i]...), "\uFFFD"...)
		} else if dst = append(dst, s[from:i]...); c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
