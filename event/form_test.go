package event

import (
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// TestFormWritesTheSameBytes holds the form against AppendPredictionJSON, row
// by row.
func TestFormWritesTheSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fields := rapid.SliceOfN(genName(), 0, 5).Draw(t, "names")
		shared := Prediction{
			EventTime: genMicros().Draw(t, "event_time"), Variant: genText().Draw(t, "variant"),
			QueueMS: opt(t, genFloat()), ComputeMS: opt(t, genFloat()), Threshold: opt(t, genFloat()),
			Weight: 1, Trace: genText().Draw(t, "trace"),
		}
		if rapid.Bool().Draw(t, "keyed") {
			shared.Key = `{"entity":"a"}`
		}
		model, version := genText().Draw(t, "model"), genText().Draw(t, "version")
		form := NewPredictionForm(model, version, fields)
		for request := range 2 { // the second reuses the first one's memory
			form.Share(&shared)
			for row := range 3 {
				p := shared
				p.Model, p.Version, p.ID = model, version, genText().Draw(t, "id")+strconv.Itoa(row+request)
				p.Output = Output{Score: opt(t, genFloat()), Value: opt(t, genFloat())}
				got := form.Begin(nil, []byte(p.ID))
				for i, name := range fields {
					v := Float(genFloat().Draw(t, "value"))
					if rapid.Bool().Draw(t, "narrow") {
						v.Type.Elem, v.Float = Float32, float64(float32(v.Float))
						got = form.Float32(got, i, float32(v.Float))
					} else {
						got = form.Value(got, i, v)
					}
					p.Inputs = append(p.Inputs, NamedValue{Name: name, Value: v})
				}
				got = form.End(got, p.Output)
				if want := AppendPredictionJSON(nil, p); string(got) != string(want) {
					t.Fatalf("got  %s\nwant %s", got, want)
				}
			}
		}
	})
}
