package app

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/demo"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/stream"
)

// runDemo produces the built-in stream, as any producer would: first the past
// that it missed, at full speed, then as time goes by.
func (a *App) runDemo(ctx context.Context) error {
	now := time.Now()
	mark, err := a.demoMark(now)
	if err != nil {
		return err
	}
	s := demo.NewStream(demo.Config{Seed: a.cfg.Demo.Seed, Rate: a.cfg.Demo.Rate, Began: mark.Began}, mark.Next)
	for s.At().Add(time.Minute).Before(now) {
		if err := a.demoStep(ctx, s, s.At().Add(time.Minute), true); err != nil {
			return a.demoStopped(ctx, err)
		}
	}
	a.sc.Log.Info("demo stream is live", "seed", a.cfg.Demo.Seed, "rate", a.cfg.Demo.Rate, "storm_at", mark.Began.Add(5*time.Minute).Format(time.TimeOnly))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := a.demoStep(ctx, s, now, now.Sub(s.At()) > 10*time.Second); err != nil {
				return a.demoStopped(ctx, err)
			}
		}
	}
}

// demoTrace tells a prediction's parts as a service does that answers it, and
// opens the span that its record continues.
func (a *App) demoTrace(ctx context.Context, e demo.Event) (parent string, record trace.Span) {
	t := a.sc.Tracer
	by := trace.WithAttributes(telemetry.AttrModel.String(demo.Model), telemetry.AttrModelVersion.String(e.Trace.Version), attribute.Bool("kedge.demo", true))
	at := e.Time
	ctx, request := t.Start(telemetry.ContextFrom(ctx, e.Trace.Parent, ""), "predict "+demo.Model, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at), by)
	for _, part := range []struct {
		name string
		took time.Duration
	}{{"features", e.Trace.Features}, {"compute", e.Trace.Compute}} {
		_, span := t.Start(ctx, part.name, trace.WithTimestamp(at), by)
		at = at.Add(part.took)
		span.End(trace.WithTimestamp(at))
	}
	request.End(trace.WithTimestamp(at))
	ctx, record = t.Start(ctx, "record", trace.WithSpanKind(trace.SpanKindProducer), by,
		trace.WithAttributes(telemetry.AttrMessaging.String("kafka"), telemetry.AttrTopic.String(TopicName(a.cfg.Namespace, event.Predictions))))
	return telemetry.Traceparent(ctx), record
}

func (a *App) demoStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// demoStep produces what happens until a time and remembers that it did. A
// crash between the two repeats events, whose ids then mark them as repeats.
func (a *App) demoStep(ctx context.Context, s *demo.Stream, to time.Time, past bool) error {
	byKind := map[event.Kind][]stream.Message{}
	var traces []trace.Span
	defer func() {
		for _, t := range traces {
			t.End()
		}
	}()
	for _, e := range s.Advance(to, past) {
		m := stream.Message{Key: e.Key, Value: e.Value}
		if e.Trace != nil && !past { // a past that is made up was traced by nobody
			parent, record := a.demoTrace(ctx, e)
			m.Headers, traces = []stream.Header{{Name: "traceparent", Value: []byte(parent)}}, append(traces, record)
		}
		byKind[e.Kind] = append(byKind[e.Kind], m)
	}
	for _, kind := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		if msgs := byKind[kind]; len(msgs) > 0 {
			if err := a.producer.Produce(ctx, TopicName(a.cfg.Namespace, kind), msgs...); err != nil {
				return fmt.Errorf("produce %s: %w", kind, err)
			}
		}
	}
	mark, err := a.demoMark(to)
	if err != nil {
		return err
	}
	mark.Next = s.At()
	return a.saveDemoMark(mark)
}

// demoMark says when the stream began and where it stands.
type demoMark struct {
	Began time.Time `json:"began"`
	Next  time.Time `json:"next"`
}

// demoMark reads the mark; without one the stream begins now, with a past.
func (a *App) demoMark(now time.Time) (demoMark, error) {
	past := time.Duration(a.cfg.Demo.Backfill)
	fresh := demoMark{Began: now.Truncate(time.Second), Next: now.Add(-past).Truncate(time.Second)}
	b, err := os.ReadFile(a.dir.Sub("demo.json"))
	if os.IsNotExist(err) {
		return fresh, a.saveDemoMark(fresh)
	}
	if err != nil {
		return fresh, err
	}
	var m demoMark
	if err := json.Unmarshal(b, &m); err != nil {
		return fresh, fmt.Errorf("read %s: %w: delete it to begin anew", a.dir.Sub("demo.json"), err)
	}
	if m.Next.Before(fresh.Next) { // stopped for longer than it would look back
		m.Next = fresh.Next
	}
	return m, nil
}

func (a *App) saveDemoMark(m demoMark) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	next := a.dir.Sub("demo.json.next")
	if err := os.WriteFile(next, b, 0o640); err != nil {
		return err
	}
	return os.Rename(next, a.dir.Sub("demo.json"))
}

// DemoTable is n rows of the demo stream's rides with their truth, to learn
// from and to replay.
func DemoTable(n int) (header []string, rows [][]string) {
	return demo.Rides(DefaultConfig().Demo.Seed, n)
}
