package event

import (
	"errors"
	"testing"
)

func TestAddressOf(t *testing.T) {
	for _, c := range []struct {
		envelope string
		kind     Kind
		key      string
		err      error
	}{
		{`{"view":"v","key":{"b":2,"a":9223372036854775807},"event_time":"x","values":{}}`, Features, `{"a":9223372036854775807,"b":2}`, nil},
		{` {"view":"v","key":{ "a":9223372036854775807, "b":2 }}`, Features, `{"a":9223372036854775807,"b":2}`, nil},
		{`{"view":"v","key":"k<1>"}`, Features, `k<1>`, nil},
		{`{"view":"v","key":7,"delete":true}`, Features, `7`, nil},
		{`{"view":"v","key":{"a":"<&>"}}`, Features, `{"a":"<&>"}`, nil},
		{`{"model":"m","version":"1","id":"p1","output":{"score":1}}`, Predictions, `p1`, nil},
		{`{"model":"m","prediction_id":"p1","label":null}`, Labels, `p1`, nil},
		{`{"model":"m","prediction_id":"p1","label":1,"namespace":"n"}`, Labels, `p1`, nil},
		{`{"model":"m","key":{"a":1},"event_time":"x","label":1}`, Labels, `{"a":1}`, nil},
		{`{"view":"v","key":true}`, Features, `true`, nil},
		{`{"key":{"b":"\u0041\n","a":true},"view":"v"}`, Features, `{"a":true,"b":"A\u000a"}`, nil},
		{`{"model":"m","id":17,"output":{"score":1}}`, Predictions, `17`, nil},
		{`{"view":"v","key":{"a":1,"a":2}}`, 0, ``, ErrNotEnvelope},
		{`{"view":"v","key":{"a":null}}`, 0, ``, ErrNoKey},
		{`{"view":"v","key":{}}`, 0, ``, ErrNoKey},
		{"{\"view\":\"v\",\"key\":\"\xff\"}", 0, ``, ErrNotEnvelope},
		{`{"view":"v"}`, 0, ``, ErrNoKey},
		{`{"view":"v","key":null}`, 0, ``, ErrNoKey},
		{`{"model":"m","output":{}}`, 0, ``, ErrNoKey},
		{`{"model":"m","label":1}`, 0, ``, ErrNoKey},
		{`{"model":"m"}`, 0, ``, ErrNoStream},
		{`{"model":"m","view":"v","key":1}`, 0, ``, ErrNoStream},
		{`{"model":"m","id":"p","output":{},"label":1}`, 0, ``, ErrNoStream},
		{`{}`, 0, ``, ErrNoStream},
		{``, 0, ``, ErrNotEnvelope},
		{`[1]`, 0, ``, ErrNotEnvelope},
		{`{"view":`, 0, ``, ErrNotEnvelope},
		{`{"view":"v","key":1} x`, 0, ``, ErrNotEnvelope},
		{`{"namespace":5,"view":"v","key":1}`, 0, ``, ErrNotEnvelope},
	} {
		a, err := AddressOf([]byte(c.envelope))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.envelope, err, c.err)
		}
		if c.err == nil && (a.Kind != c.kind || string(a.Key) != c.key) {
			t.Errorf("%s: %s %s, want %s %s", c.envelope, a.Kind, a.Key, c.kind, c.key)
		}
	}
}

func FuzzAddressOf(f *testing.F) {
	f.Add([]byte(`{"view":"v","key":{"a":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := AddressOf(b); err == nil && a.Kind == 0 {
			t.Fatalf("%q: no kind and no error", b)
		}
	})
}
