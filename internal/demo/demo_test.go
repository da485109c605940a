package demo

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func config() Config { return Config{Seed: 7, Rate: 20, Began: began} }

func text(events []Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, string(e.Value))
	}
	return out
}

// What happens must not depend on the steps in which it is asked for, nor on
// restarts.
func TestStreamIsAFunctionOfTime(t *testing.T) {
	end := began.Add(15 * time.Minute)
	whole := text(NewStream(config(), began).Advance(end, false))
	var steps []string
	s := NewStream(config(), began)
	for at, i := began, 0; at.Before(end); i++ {
		at = at.Add(time.Duration(i%7) * 700 * time.Millisecond)
		if at.After(end) {
			at = end
		}
		steps = append(steps, text(s.Advance(at, false))...)
	}
	if !slices.Equal(whole, steps) {
		t.Fatalf("%d events at once, %d in steps", len(whole), len(steps))
	}
	cut := began.Add(6*time.Minute + 13*time.Second)
	first := text(NewStream(config(), began).Advance(cut, false))
	second := text(NewStream(config(), cut).Advance(end, false))
	if !slices.Equal(whole, append(first, second...)) {
		t.Fatalf("%d events at once, %d + %d over a restart", len(whole), len(first), len(second))
	}
}

// Every event must become a row, every label must meet its prediction, later.
func TestEveryEventDecodes(t *testing.T) {
	events := NewStream(config(), began).Advance(began.Add(12*time.Minute), true)
	units := map[event.Kind]*event.Unit{}
	catalog, err := event.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := event.NewDecoder(event.DefaultDecoderConfig())
	for _, k := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		units[k] = &event.Unit{Topic: "kedge.default." + k.String(), Namespace: "default", Kind: k, Catalog: catalog}
	}
	predicted := map[string]time.Time{}
	labels := 0
	for i, e := range events {
		if i > 0 && e.Time.Truncate(time.Second).Before(events[i-1].Time.Truncate(time.Second)) {
			t.Fatalf("event %d goes back in time", i)
		}
		if a, err := event.AddressOf(e.Value); err != nil || a.Kind != e.Kind || string(a.Key) != string(e.Key) {
			t.Fatalf("event %d has key %s for %s: its address is %+v, %v", i, e.Key, e.Kind, a, err)
		}
		d.Decode(units[e.Kind], event.Record{Offset: int64(i), Time: e.Time.UnixMicro(), Key: e.Key, Value: e.Value})
		var head struct {
			ID         string `json:"id"`
			Prediction string `json:"prediction_id"`
		}
		if err := json.Unmarshal(e.Value, &head); err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case event.Predictions:
			predicted[head.ID] = e.Time
		case event.Labels:
			labels++
			if at, ok := predicted[head.Prediction]; ok && !e.Time.After(at) {
				t.Fatalf("label %s is not later than its prediction", head.Prediction)
			}
		}
	}
	for k, u := range units {
		if len(u.Dead) > 0 {
			t.Errorf("%s: dead letter: %+v", k, u.Dead[0])
		}
		if len(u.Proposals) == 0 {
			t.Errorf("%s: no definition proposed", k)
		}
	}
	if labels < len(predicted)*3/4 {
		t.Errorf("%d labels for %d predictions", labels, len(predicted))
	}
}

func TestRateMayBeBroken(t *testing.T) {
	cfg := config()
	cfg.Rate = 0.25
	n := 0
	for _, e := range NewStream(cfg, began).Advance(began.Add(100*time.Second), false) {
		if e.Kind == event.Predictions {
			n++
		}
	}
	if n != 25 {
		t.Fatalf("%d predictions in 100 s at 0.25/s", n)
	}
}

// The storm must move one feature, and make the model worse.
func TestStormIsWorthSeeing(t *testing.T) {
	s := NewStream(config(), began)
	calmWait, calmBrier := measure(s, began, began.Add(5*time.Minute))
	stormWait, stormBrier := measure(s, began.Add(10*time.Minute), began.Add(15*time.Minute))
	if stormWait < 1.4*calmWait || stormBrier < 1.5*calmBrier {
		t.Fatalf("mean wait %.2f → %.2f, Brier score %.3f → %.3f", calmWait, stormWait, calmBrier, stormBrier)
	}
}

func measure(s *Stream, from, to time.Time) (wait, brier float64) {
	n := 0.0
	for at := from; at.Before(to); at = at.Add(time.Second) {
		for _, r := range s.rides(at) {
			y := 0.0
			if r.cancel {
				y = 1
			}
			wait, brier, n = wait+r.wait, brier+(r.score-y)*(r.score-y), n+1
		}
	}
	return wait / n, brier / n
}
