package demo

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Names that the stream's events carry.
const (
	View  = "driver_stats"
	Model = "ride_cancel"
)

const drivers = 60

// ride is one prediction with what the world knows of it.
type ride struct {
	id       string
	at       time.Time
	labelAt  time.Time
	driver   int
	version  string
	distance float64 // km
	wait     float64 // minutes until pick-up
	surge    float64 // price factor
	rating   float64 // the driver's
	hour     int
	district string
	score    float64 // what the model says
	cancel   bool    // what turns out
	features float64 // ms that looking features up took
	compute  float64 // ms that the model took
	traced   bool    // by its caller
}

func districts() []string {
	return []string{"centre", "harbour", "airport", "north", "university", "old town"}
}

// rng of one second; stream separates uses of the same second.
func (s *Stream) rng(at time.Time, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(s.cfg.Seed, uint64(at.Unix())*4+stream))
}

// rides are the predictions of one second.
func (s *Stream) rides(at time.Time) []ride {
	r, slow := s.rng(at, 0), s.rng(at, 3)
	// floor((u+1)·rate) − floor(u·rate) spreads a broken rate evenly
	u := float64(at.Unix() % 1_000_000)
	n := int(math.Floor((u+1)*s.cfg.Rate) - math.Floor(u*s.cfg.Rate))
	out := make([]ride, n)
	for i := range out {
		out[i] = s.ride(r, at, i, n)
		out[i].features, out[i].compute = s.durations(slow, at)
		out[i].traced = i == 0
	}
	return out
}

func (s *Stream) ride(r *rand.Rand, at time.Time, i, n int) ride {
	storm := s.cfg.storm(at)
	at = at.Add(time.Duration(i) * time.Second / time.Duration(n)).Truncate(time.Microsecond)
	v := ride{
		id:       fmt.Sprintf("ride-%d-%d", at.Unix(), i),
		at:       at,
		driver:   r.IntN(drivers),
		version:  "v1",
		distance: 0.5 + 4*r.ExpFloat64(),
		wait:     math.Exp(1.5 + 0.45*r.NormFloat64() + 0.55*storm),
		surge:    1 + math.Floor(4*math.Pow(r.Float64(), 3)*(1+storm))/4,
		hour:     at.UTC().Hour(),
		district: districts()[pick(r, storm)],
	}
	if r.Float64() < 0.15 {
		v.version = "v2" // a canary with the same inputs
	}
	v.rating = math.Round(100*(4.9-0.5*float64(v.driver%7)/7-0.1*r.Float64())) / 100
	v.score = logistic(-4.2 + 0.28*v.wait + 0.9*(v.surge-1) - 0.05*v.distance - 0.8*(v.rating-4.5) + s.bias(v))
	v.cancel = r.Float64() < s.truth(v, storm)
	v.labelAt = at.Add(20*time.Second + time.Duration(math.Min(r.ExpFloat64()*90, 570)*float64(time.Second))).Truncate(time.Millisecond)
	return v
}

// durations are what a prediction takes, in ms: in a storm the feature store is
// busy, and one in two hundred waits for it.
func (s *Stream) durations(r *rand.Rand, at time.Time) (features, compute float64) {
	features = math.Exp(0.9 + 0.4*r.NormFloat64() + 0.7*s.cfg.storm(at))
	if r.Float64() < 0.005 {
		features += 60 * r.ExpFloat64()
	}
	return round(features, 3), round(math.Exp(1.2+0.25*r.NormFloat64()), 3)
}

// bias is what the second version believes of the harbour.
func (s *Stream) bias(v ride) float64 {
	if v.version == "v2" && v.district == "harbour" {
		return 0.6
	}
	return 0
}

// truth is the chance of a cancellation. In a storm people wait patiently,
// except at the harbour: the model has not learnt that.
func (s *Stream) truth(v ride, storm float64) float64 {
	calm := -4.2 + 0.28*v.wait + 0.9*(v.surge-1) - 0.05*v.distance - 0.8*(v.rating-4.5)
	stormy := -2.6 + 0.02*v.wait + 0.3*(v.surge-1)
	if v.district == "harbour" {
		stormy += 2
	}
	return logistic(calm*(1-storm) + stormy*storm)
}

// pick a district; a storm drives people to the airport.
func pick(r *rand.Rand, storm float64) int {
	weights := []float64{0.34, 0.18, 0.12 + 0.2*storm, 0.14, 0.13, 0.09}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	x := r.Float64() * sum
	for i, w := range weights {
		if x -= w; x < 0 {
			return i
		}
	}
	return len(weights) - 1
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Rides are n rides of a rush hour, when waits are long and of every length,
// with what turned out true of each, as text: rows to learn from.
func Rides(seed uint64, n int) (header []string, rows [][]string) {
	at := time.Unix(1_750_000_000, 0)
	s := &Stream{cfg: Config{Seed: seed, Rate: 10, Began: at.AddDate(10, 0, 0)}}
	text := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	for ; len(rows) < n; at = at.Add(time.Second) {
		r := s.rng(at, 2)
		for _, v := range s.rides(at) {
			v.wait = 1.5 * math.Pow(v.wait, 1.3)
			cancelled := "0"
			if r.Float64() < s.truth(v, 0) {
				cancelled = "1"
			}
			rows = append(rows, []string{text(round(v.distance, 3)), text(round(v.wait, 3)), text(v.surge), text(v.rating), strconv.Itoa(v.hour), v.district, cancelled})
		}
	}
	return []string{"distance_km", "wait_minutes", "surge", "driver_rating", "hour", "district", "cancelled"}, rows[:n]
}

func (s *Stream) prediction(v ride) Event {
	score := round(v.score, 6)
	threshold := 0.5
	p := event.Prediction{
		Model: Model, Version: v.version, ID: v.id, EventTime: v.at.UnixMicro(),
		Key: `{"driver_id":` + strconv.Itoa(1000+v.driver) + `}`,
		Inputs: []event.NamedValue{
			{Name: "distance_km", Value: event.Float(round(v.distance, 3))},
			{Name: "wait_minutes", Value: event.Float(round(v.wait, 3))},
			{Name: "surge", Value: event.Float(v.surge)},
			{Name: "driver_rating", Value: event.Float(v.rating)},
			{Name: "hour", Value: event.Int(int64(v.hour))},
			{Name: "district", Value: event.Text(v.district)},
		},
		Output: event.Output{Score: &score}, Threshold: &threshold, Weight: 1,
		Segments: []event.NamedText{{Name: "district", Value: v.district}},
		KnownAt:  s.knownAt(v.at), FeaturesMS: &v.features, ComputeMS: &v.compute,
	}
	e := Event{Kind: event.Predictions, Time: v.at, Key: []byte(v.id), Value: event.AppendPredictionJSON(nil, p)}
	if v.traced {
		of := sha256.Sum256([]byte(v.id)) // the same over restarts
		e.Trace = &Trace{Parent: fmt.Sprintf("00-%x-%x-01", of[:16], of[16:24]), Version: v.version, Features: milliseconds(v.features), Compute: milliseconds(v.compute)}
	}
	return e
}

func (s *Stream) label(v ride) Event {
	number := 0.0
	if v.cancel {
		number = 1
	}
	l := event.Label{
		Model: Model, PredictionID: v.id, EventTime: v.labelAt.UnixMicro(), ID: "label-" + v.id,
		Number: &number, Weight: 1, KnownAt: s.knownAt(v.labelAt),
	}
	return Event{Kind: event.Labels, Time: v.labelAt, Key: []byte(v.id), Value: event.AppendLabelJSON(nil, l)}
}

// statsEvery is how often a driver's statistics are stated.
const statsEvery = 15

// drivers states the statistics of those whose turn it is.
func (s *Stream) drivers(at time.Time) []Event {
	r, storm := s.rng(at, 1), s.cfg.storm(at)
	var out []Event
	for d := int(at.Unix() % statsEvery); d < drivers; d += statsEvery {
		t := at.Add(time.Duration(d) * time.Millisecond)
		day := 2 * math.Pi * float64(at.Unix()%86400) / 86400
		row := event.FeatureRow{
			View: View, Key: []event.NamedValue{{Name: "driver_id", Value: event.Int(int64(1000 + d))}},
			EventTime: t.UnixMicro(), KnownAt: s.knownAt(t), ID: fmt.Sprintf("stats-%d-%d", at.Unix(), d),
			Values: []event.NamedValue{
				{Name: "acceptance_rate", Value: event.Float(round(clamp(0.82+0.06*r.NormFloat64()-0.18*storm), 4))},
				{Name: "conversion_rate", Value: event.Float(round(clamp(0.55+0.05*math.Sin(day)+0.05*r.NormFloat64()), 4))},
				{Name: "mean_wait_minutes", Value: event.Float(round(math.Exp(1.5+0.2*r.NormFloat64()+0.55*storm), 3))},
				{Name: "trips_today", Value: event.Int(at.Unix() % 86400 / 2400 * int64(1+d%3))},
				{Name: "online", Value: event.Flag(r.Float64() > 0.05)},
				{Name: "battery", Value: s.battery(r)},
			},
		}
		key := `{"driver_id":` + strconv.Itoa(1000+d) + `}` // as event.AddressOf has it
		out = append(out, Event{Kind: event.Features, Time: t, Key: []byte(key), Value: event.AppendFeatureJSON(nil, row)})
	}
	return out
}

// battery is missing now and then, as sensors are.
func (s *Stream) battery(r *rand.Rand) event.Value {
	level := r.Float64()
	if r.Float64() < 0.04 {
		return event.Value{}
	}
	return event.Float(round(level, 2))
}

func (s *Stream) knownAt(t time.Time) int64 {
	if s.past {
		return t.UnixMicro()
	}
	return 0
}

func milliseconds(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }

func clamp(x float64) float64 { return math.Min(1, math.Max(0, x)) }

func round(x float64, digits int) float64 {
	p := math.Pow(10, float64(digits))
	return math.Round(x*p) / p
}
