package drift_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/internal/telemetry"
	kafka "github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// alertsTopic is a broker with a topic of alerts.
type alertsTopic struct {
	t      *testing.T
	name   string
	client *kafka.Client
	tell   *kafka.Producer
}

func newAlertsTopic(t *testing.T) *alertsTopic {
	t.Helper()
	b, err := broker.Start(broker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	a := &alertsTopic{t: t, name: "kedge.test.alerts"}
	if a.client, err = kafka.NewClient(kafka.Config{Brokers: []string{b.Addr()}}); err != nil {
		t.Fatal(err)
	}
	if err := a.client.EnsureTopics(t.Context(), []kafka.TopicSpec{{Name: a.name, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	a.tell = a.client.Producer(kafka.ProducerConfig{})
	t.Cleanup(func() {
		_ = a.tell.Close()
		_ = a.client.Close()
		b.Close()
	})
	return a
}

// from reads the alerts from an offset to the end.
func (a *alertsTopic) from(offset int64) (out []drift.Alert) {
	a.t.Helper()
	tp := kafka.TopicPartition{Topic: a.name}
	all, err := a.client.Offsets(a.t.Context(), tp)
	if err != nil {
		a.t.Fatal(err)
	}
	if all[tp].Last <= offset {
		return nil
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), 30*time.Second)
	defer cancel()
	err = a.client.NewFetcher(kafka.FetchConfig{MinBytes: 1}).Run(ctx, map[kafka.TopicPartition]int64{tp: offset}, func(_ context.Context, b *kafka.Batch) error {
		defer b.Release()
		for _, r := range b.Records {
			var alert drift.Alert
			if err := json.Unmarshal(r.Value, &alert); err != nil {
				return err
			}
			if string(r.Key) != alert.Subject {
				return fmt.Errorf("an alert about %s has the key %q", alert.Subject, r.Key)
			}
			out = append(out, alert)
		}
		if b.Next >= all[tp].Last {
			cancel()
		}
		return nil
	})
	if err != nil && ctx.Err() != context.Canceled {
		a.t.Fatal(err)
	}
	return out
}

// Who reads the topic of alerts hears once of all that opened in a look, the
// worst first, of nothing while it lasts, and once of its end, under one id; each
// in a plain sentence: what moved, by how much, where, and how important it is.
func TestAlertsAreToldOnce(t *testing.T) {
	s, reg, topic := newStream(t), openRegistry(t), newAlertsTopic(t)
	define(t, reg, drift.MonitorKind, "user", `{"view":"user","window":"1m","importance":{"calm":0.9}}`, "")
	sch, err := drift.NewScheduler(drift.SchedulerConfig{Namespace: "test", Topic: topic.name, Scope: telemetry.Discard()}, s.store, reg, topic.tell)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(71, 72))
	begin, n, looks := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), 0, 0
	add := func(minutes int, amount, calm float64) {
		s.together(func() {
			for range minutes {
				s.write(begin.Add(time.Duration(n)*time.Minute), time.Minute, normals(rng, 250, amount), normals(rng, 250, calm))
				n++
			}
		})
		for range 2 {
			looks++
			sch.Look(t.Context(), begin.Add(time.Duration(n+3)*time.Minute+time.Duration(looks)*time.Second))
		}
	}
	add(33, 0, 5)
	if got := topic.from(0); len(got) != 0 {
		t.Fatalf("before anything moved: %+v", got)
	}
	add(4, 0.5, 6.5)
	opened := topic.from(0)
	if len(opened) != 1 {
		t.Fatalf("%d messages of one look: %+v", len(opened), opened)
	}
	a := opened[0]
	var columns []string
	for _, c := range a.Changes {
		if c.Change != "opened" {
			t.Errorf("%+v", c)
		}
		columns = append(columns, c.Column)
	}
	if a.ID == "" || a.Namespace != "test" || a.Monitor != "user" || a.Subject != "user" || a.Open != len(a.Changes) || len(a.Changes) < 2 || columns[0] != "calm" || !slices.Contains(columns, "amount") || a.Severity != a.Changes[0].Severity {
		t.Errorf("of two columns, calm the worse one: %+v", a)
	}
	for _, part := range []string{"user: calm, amount. calm moved: distance 0.", "; mean 6.", ", was ", "; most at ", "; it matters much to the model"} {
		if !strings.Contains(a.Sentence, part) {
			t.Errorf("no %q in %q", part, a.Sentence)
		}
	}
	add(4, 0.5, 6.5)
	for _, m := range topic.from(1) { // a slow change may come to it
		if slices.ContainsFunc(m.Changes, func(c drift.AlertChange) bool { return c.Detector == "ks" }) || m.ID != a.ID {
			t.Errorf("while it lasts: %+v", m)
		}
	}
	add(8, 0, 5)
	all := topic.from(0)
	last := all[len(all)-1]
	if last.ID != a.ID || last.Open != 0 || last.Severity == "" || !strings.HasPrefix(last.Sentence, "user, over: ") || slices.ContainsFunc(last.Changes, func(c drift.AlertChange) bool { return c.Change != "resolved" }) {
		t.Errorf("its end: %+v", last)
	}
	ended := map[string]bool{}
	for _, m := range all[1:] {
		for _, c := range m.Changes {
			if c.Change == "resolved" && ended[c.Incident] {
				t.Errorf("the end of %s is told twice", c.Incident)
			}
			ended[c.Incident] = ended[c.Incident] || c.Change == "resolved"
		}
	}
	for _, c := range a.Changes {
		if !ended[c.Incident] {
			t.Errorf("the end of %+v is not told", c)
		}
	}
}
