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

// What is snoozed is told again once that is over and it goes on, and stands as
// open. What is acknowledged is told of no more until it ends, and a planned change not while it
// lasts; a later incident is.
func TestSilenceEnds(t *testing.T) {
	m, topic := newMinutes(t), newAlertsTopic(t)
	m.topicOf = topic
	m.restart()
	said := 0
	wantTold := func(when string, states []string, changes ...string) {
		t.Helper()
		var got []string
		for _, a := range topic.from(int64(said)) {
			said++
			for _, c := range a.Changes {
				if c.Column == "amount" && c.Detector == "ks" {
					got = append(got, c.Change)
				}
			}
		}
		if !slices.Equal(got, changes) {
			t.Errorf("%s: told %q, want %q", when, got, changes)
		}
		m.wantIncidents(when, "amount", states...)
	}
	act := func(name, do string, until int) {
		t.Helper()
		_, ids, _ := m.incidents("amount")
		spec := fmt.Sprintf(`{"do":%q,"monitor":"quick","column":"amount","incident":%q}`, do, ids[len(ids)-1])
		if until > 0 {
			spec = fmt.Sprintf(`{"do":%q,"monitor":"quick","column":"amount","from":%q,"until":%q}`, do, m.at(until-6).Format(time.RFC3339), m.at(until).Format(time.RFC3339))
		}
		define(t, m.reg, drift.ActionKind, name, spec, "we know")
		m.look()
	}
	define(t, m.reg, drift.MonitorKind, "quick", `{"view":"user","window":"1m","policy":{"cooldown":"1m"}}`, "")
	m.add(33, 0)
	m.add(4, 1.5) // 33 to 36
	wantTold("it opens", []string{"open"}, "opened")
	act("s", "snooze", 42)
	m.add(4, 1.5) // to 40
	wantTold("while it is snoozed", []string{"snoozed"})
	m.restart()
	m.add(5, 1.5) // to 45
	wantTold("once the snooze is over", []string{"open"}, "opened")
	act("a", "acknowledge", 0)
	m.restart()
	m.add(6, 1.5)
	wantTold("once it is acknowledged", []string{"acknowledged"})
	m.add(6, 0) // 52 to 57
	wantTold("when it ends", []string{"resolved"}, "resolved")
	m.add(4, 1.5) // 58 to 61
	wantTold("the next one", []string{"resolved", "open"}, "opened")
	m.add(6, 0) // 62 to 67
	wantTold("and its end", []string{"resolved", "resolved"}, "resolved")
	act("p", "planned", 74) // 68 to 73
	m.add(4, 1.5)           // 68 to 71
	wantTold("as planned", []string{"resolved", "resolved", "silenced"})
	m.add(6, 1.5) // to 77
	wantTold("longer than planned", []string{"resolved", "resolved", "open"}, "opened")
}
