package drift_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
)

// minuteStream writes minutes of a view "user" and lets a scheduler look at them;
// or hours, whose rows lie in their first minutes.
type minuteStream struct {
	*stream
	step  time.Duration
	pause time.Duration // between looks
	reg   *registry.Registry
	sch   *drift.Scheduler
	rng   *rand.Rand
	begin time.Time
	n     int // minutes written
	looks int

	topicOf *alertsTopic // who is told; nil: nobody
}

func newMinutes(t *testing.T) *minuteStream {
	t.Helper()
	m := &minuteStream{stream: newStream(t), step: time.Minute, pause: time.Second, reg: openRegistry(t), rng: rand.New(rand.NewPCG(21, 22)), begin: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	m.restart()
	return m
}

func (m *minuteStream) restart() {
	m.sch = newScheduler(m.t, m.stream, m.reg)
	if a := m.topicOf; a != nil {
		var err error
		if m.sch, err = drift.NewScheduler(drift.SchedulerConfig{Namespace: "test", Topic: a.name, Scope: telemetry.Discard()}, m.store, m.reg, a.tell); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *minuteStream) at(minute int) time.Time {
	return m.begin.Add(time.Duration(minute) * m.step)
}

// add writes minutes of a mean, and has them judged.
func (m *minuteStream) add(minutes int, mean float64) {
	m.t.Helper()
	m.together(func() {
		for range minutes {
			m.write(m.at(m.n), time.Minute, normals(m.rng, 250, mean), normals(m.rng, 250, 5))
			m.n++
		}
	})
	m.look()
	m.look()
}

func (m *minuteStream) look() {
	m.t.Helper()
	m.looks++ // no two looks are at one time
	m.sch.Look(m.t.Context(), m.at(m.n+3).Add(time.Duration(m.looks)*m.pause))
}

// incidents are the states of incidents about the shape of a column, oldest
// first, with their ids and sentences.
func (m *minuteStream) incidents(column string) (states, ids, sentences []string) {
	m.t.Helper()
	f := ask(m.t, m.store.Incidents, week(m.begin))
	opened := values[time.Time](m.t, f, "opened")
	var order []int
	for i, c := range cells(m.t, f, "column") {
		if c == column && cells(m.t, f, "detector")[i] == "ks" {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return opened[a].Compare(opened[b]) })
	for _, i := range order {
		states, ids, sentences = append(states, cells(m.t, f, "state")[i]), append(ids, cells(m.t, f, "id")[i]), append(sentences, cells(m.t, f, "sentence")[i])
	}
	return states, ids, sentences
}

func (m *minuteStream) wantIncidents(when, column string, want ...string) {
	m.t.Helper()
	if got, _, _ := m.incidents(column); !slices.Equal(got, want) {
		m.t.Fatalf("%s: incidents of %s are %q, want %q", when, column, got, want)
	}
}

// verdict is what the newest revision says of the shape of amount in a minute.
func (m *minuteStream) verdict(minute int) (drifted bool, reference string) {
	m.t.Helper()
	f := ask(m.t, m.store.Verdicts, query.Request{Namespace: "test", View: "user", From: m.at(minute), To: m.at(minute + 1)})
	for i, column := range cells(m.t, f, "column") {
		if column == "amount" && cells(m.t, f, "detector")[i] == "ks" {
			return flags(m.t, f, "drifted")[i], cells(m.t, f, "reference")[i]
		}
	}
	m.t.Fatalf("minute %d has no verdict: %+v", minute, f)
	return false, ""
}

// referenceRows is how many rows the reference of amount has.
func (m *minuteStream) referenceRows() uint64 {
	m.t.Helper()
	f := ask(m.t, m.sch.Preview, query.Request{Namespace: "test", View: "user"})
	return counts(m.t, f, "reference_rows")[slices.Index(cells(m.t, f, "column"), "amount")]
}

// openState is what alert rules are told of amount.
func (m *minuteStream) openState() float64 {
	m.t.Helper()
	f := ask(m.t, m.store.DriftState, query.Request{Namespace: "test", View: "user", From: m.begin, To: m.at(m.n), Columns: []string{"amount"}, Detector: "ks"})
	return values[float64](m.t, f, "state")[0]
}

// What is accepted until a time is what windows are held against until then,
// whatever happens to the process, and the reference is again afterwards: the
// incident opens anew and says why. Late rows find what held at their time.
func TestAcceptedUntilATime(t *testing.T) {
	m := newMinutes(t)
	m.add(33, 0)
	m.add(4, 1.5)
	m.wantIncidents("after a shift", "amount", "open")
	if got := m.openState(); got == 0 {
		t.Errorf("alert rules are told nothing of it")
	}
	_, ids, _ := m.incidents("amount")
	define(t, m.reg, drift.ActionKind, "accept-1", `{"do":"accept","monitor":"view/user","column":"amount","incident":"`+ids[0]+`","until":"2026-03-01T00:50:00Z"}`, "the sale")
	m.look()
	m.restart()
	m.add(5, 1.5)
	m.wantIncidents("while it is accepted", "amount", "accepted")
	if got := m.openState(); got != 0 {
		t.Errorf("alert rules are told of it while it is accepted: %v", got)
	}
	if drifted, reference := m.verdict(40); drifted || !strings.Contains(reference, "accepted by ann until 2026-03-01T00:50:00Z: the sale") {
		t.Errorf("while it is accepted: drifted %v, held against %q", drifted, reference)
	}
	if err := m.store.SaveMonitorState(t.Context(), "test", "view/user", map[string]string{"accepted/gone": "{}"}, 1); err != nil {
		t.Fatal(err)
	}
	m.restart()
	m.add(12, 1.5) // to 00:54
	parts, err := m.store.MonitorState(t.Context(), "test", "view/user")
	if err != nil || parts["accepted/gone"] != "" || parts["accepted/"+ids[0]] == "" {
		t.Errorf("what is stored of acceptances: %v, %v", slices.Sorted(maps.Keys(parts)), err)
	}
	m.wantIncidents("once that is over", "amount", "lapsed", "open")
	_, again, sentences := m.incidents("amount")
	if again[0] != ids[0] || again[1] == ids[0] || !strings.Contains(sentences[1], "what was accepted by ann until 2026-03-01T00:50:00Z: the sale, is normal no longer") {
		t.Errorf("the incident that opened again: %q %q", again, sentences)
	}
	if drifted, reference := m.verdict(51); !drifted || strings.Contains(reference, "accepted") {
		t.Errorf("once that is over: drifted %v, held against %q", drifted, reference)
	}
	define(t, m.reg, drift.ActionKind, "accept-2", `{"do":"accept","monitor":"view/user","column":"amount","until":"2026-03-01T00:50:00Z"}`, "too late")
	m.add(1, 1.5)
	m.wantIncidents("accepted and over in one look", "amount", "lapsed", "lapsed")
	m.add(3, 1.5)
	m.write(m.at(45), time.Minute, normals(m.rng, 50, 1.5), normals(m.rng, 50, 5))
	m.look()
	if drifted, reference := m.verdict(45); drifted || !strings.Contains(reference, "accepted by ann") {
		t.Errorf("late rows of the accepted time: drifted %v, held against %q", drifted, reference)
	}
	m.add(4, 0)
	m.wantIncidents("when it has gone", "amount", "lapsed", "lapsed", "resolved")
}

// accept accepts what is open of amount, until a minute or for good.
func (m *minuteStream) accept(name string, until int, why string) {
	m.t.Helper()
	spec := `{"do":"accept","monitor":"view/user","column":"amount"}`
	if until >= 0 {
		spec = strings.Replace(spec, "}", fmt.Sprintf(`,"until":%q}`, m.at(until).Format(time.RFC3339)), 1)
	}
	define(m.t, m.reg, drift.ActionKind, name, spec, why)
	m.look()
}

func (m *minuteStream) wantVerdict(minute int, drifted bool, reference string) {
	m.t.Helper()
	if is, of := m.verdict(minute); is != drifted || !strings.Contains(of, reference) {
		m.t.Errorf("minute %d: drifted %v, held against %q; want %v, %q", minute, is, of, drifted, reference)
	}
}

// What is accepted until a time stands beside the reference, and beside what else
// is accepted: a window that is like one of them is no news, whichever came last,
// and each ends at its own time. What has ended before it was given ends at once.
func TestAcceptancesSideBySide(t *testing.T) {
	m := newMinutes(t)
	m.add(33, 0)
	m.add(4, 1.5)
	m.accept("sale", 56, "the sale")
	m.add(3, 0) // 37 to 39
	m.add(2, 1.5)
	m.wantIncidents("there and back", "amount", "accepted")
	m.wantVerdict(38, false, "2026-03-01 00:00 to ")
	m.add(4, -1.5) // 42 to 45
	m.wantIncidents("like neither", "amount", "accepted", "open")
	if _, _, sentences := m.incidents("amount"); !strings.Contains(sentences[1], "; nor is it like what was accepted by ann until 2026-03-01T00:56:00Z: the sale") {
		t.Errorf("like neither: %q", sentences[1])
	}
	m.accept("strike", 50, "the strike")
	m.restart()
	m.add(4, -1.5) // 46 to 49
	m.wantIncidents("two are accepted", "amount", "accepted", "accepted")
	m.add(4, -1.5) // 50 to 53
	m.wantIncidents("the newer one has ended", "amount", "accepted", "lapsed", "open")
	if _, _, sentences := m.incidents("amount"); !strings.Contains(sentences[2], "; what was accepted by ann until 2026-03-01T00:50:00Z: the strike, is normal no longer") {
		t.Errorf("the newer one has ended: %q", sentences[2])
	}
	m.restart()
	m.add(3, 1.5) // 53 is the strike's: 54 to 56 are the sale's but the last
	m.wantVerdict(55, false, "accepted by ann until 2026-03-01T00:56:00Z: the sale")
	m.together(func() { // late
		for _, late := range []struct {
			minute int
			mean   float64
		}{{47, -1.5}, {41, 1.5}, {38, 0}} {
			m.write(m.at(late.minute), time.Minute, normals(m.rng, 50, late.mean), normals(m.rng, 50, 5))
		}
	})
	m.add(4, 1.5) // 57 to 60
	m.wantVerdict(47, false, "accepted by ann until 2026-03-01T00:50:00Z: the strike")
	m.wantVerdict(41, false, "accepted by ann until 2026-03-01T00:56:00Z: the sale")
	m.wantVerdict(38, false, "2026-03-01 00:00 to ")
	m.wantVerdict(58, true, "2026-03-01 00:00 to ")
	m.wantIncidents("the older one has ended too", "amount", "lapsed", "lapsed", "open")

	m.accept("too late", 40, "it was a mistake")
	m.wantIncidents("until a time that has passed", "amount", "lapsed", "lapsed", "accepted")
	m.add(4, 1.5)
	m.wantIncidents("which ends at once", "amount", "lapsed", "lapsed", "lapsed", "open")
	m.add(5, 0)
	m.wantIncidents("when all has gone", "amount", "lapsed", "lapsed", "lapsed", "resolved")
}

// What is accepted for good is the reference: the rows since are, also of the
// longer reference to come, a later change and the way back are none of it, and
// what was said before it stays, whatever comes late.
func TestAcceptedForGood(t *testing.T) {
	m := newMinutes(t)
	m.step, m.pause = time.Hour, 6*time.Minute
	m.add(30, 0)
	m.add(4, 1.5) // 30 to 33
	m.wantVerdict(31, true, "2026-03-01 00:00 to 2026-03-02 00:00")
	m.accept("stays", -1, "so it is")
	m.add(8, 1.5)
	m.wantIncidents("after acceptance", "amount", "accepted")
	if n := m.referenceRows(); n != 250*3 { // the second of the three that were judged opened it
		t.Errorf("held against %d rows, want those of hours 31 to 33", n)
	}
	m.together(func() {
		m.write(m.at(28), time.Minute, normals(m.rng, 50, 0), normals(m.rng, 50, 5))
		m.write(m.at(31), time.Minute, normals(m.rng, 50, 1.5), normals(m.rng, 50, 5))
	})
	m.restart()
	m.add(58, 1.5) // to 99
	m.wantVerdict(28, false, "2026-03-01 00:00 to 2026-03-02 00:00")
	m.wantVerdict(31, false, "")
	m.wantVerdict(98, false, "2026-03-01 00:00 to 2026-03-05 00:00")
	if n := m.referenceRows(); n != 250*(96-31)+50 {
		t.Errorf("after four days it is held against %d rows, want those of hours 31 to 95 and the late ones", n)
	}
	m.wantIncidents("as it was accepted", "amount", "accepted")
	m.add(4, 0) // 100 to 103
	m.wantIncidents("back where it was", "amount", "accepted", "open")
	m.restart()
	m.add(4, 0)
	m.wantIncidents("after a restart", "amount", "accepted", "open")
	replay := ask(t, m.sch.Backtest, query.Request{View: "user", From: m.at(24)})
	i := slices.IndexFunc(cells(t, replay, "column"), func(c string) bool { return c == "amount" })
	if got := values[int64](t, replay, "incidents")[i]; got != 1 {
		t.Errorf("a replay tells %d incidents of amount, want the way back alone: %+v", got, replay)
	}
}

// What no reference decides is silent while it is accepted, and told again
// afterwards if it lasts.
func TestAcceptedWithoutAReference(t *testing.T) {
	m := newMinutes(t)
	define(t, m.reg, drift.MonitorKind, "limits", `{"view":"user","columns":["amount"],"constraints":[{"column":"amount","max":50}]}`, "")
	m.add(33, 0)
	broken := func(minutes int) {
		m.together(func() {
			for range minutes {
				m.write(m.at(m.n), time.Minute, append(normals(m.rng, 249, 0), 99), normals(m.rng, 250, 5))
				m.n++
			}
		})
		m.look()
		m.look()
	}
	state := func() (state string, told bool) {
		f := ask(t, m.store.Incidents, week(m.begin))
		i := slices.Index(cells(t, f, "detector"), "constraint")
		if i < 0 {
			t.Fatalf("no incident of a constraint: %+v", f)
		}
		return cells(t, f, "state")[i], flags(t, f, "told")[i]
	}
	broken(4)
	if s, told := state(); s != "open" || !told {
		t.Fatalf("a broken constraint is %s, told %v", s, told)
	}
	define(t, m.reg, drift.ActionKind, "accept-1", `{"do":"accept","monitor":"limits","until":"2026-03-01T00:45:00Z"}`, "a batch of gifts")
	broken(3)
	if s, _ := state(); s != "accepted" {
		t.Errorf("while it is accepted it is %s", s)
	}
	f := ask(t, m.store.Incidents, week(m.begin))
	if len(cells(t, f, "id")) != 1 {
		t.Errorf("it opened again: %+v", f)
	}
}

// What is accepted until a time stands beside the reference, whichever that is:
// a promoted version's training, on other bins, or its own first rows, or what a
// changed definition says. It ends when it was said to.
func TestAcceptedAcrossReferences(t *testing.T) {
	p := newPromoted(t)
	define(t, p.registry, drift.MonitorKind, "watch", `{"model":"churn","window":"1m"}`, "")
	p.champion = drift.Champion{Version: "1", Artifact: "aaaa", Since: p.begin}
	p.minutes(34, 0)
	p.minutes(6, 3)
	at := func(minute int) string { return p.begin.Add(time.Duration(minute) * time.Minute).Format(time.RFC3339) }
	states := func() map[string]string {
		return told(t, p.store, query.Request{Namespace: "test", Model: "churn", From: p.begin, To: p.begin.Add(24 * time.Hour)})
	}
	if got := states()["x"]; got != "open" {
		t.Fatalf("x is %q", got)
	}
	define(t, p.registry, drift.ActionKind, "sale", fmt.Sprintf(`{"do":"accept","monitor":"watch","column":"x","until":%q}`, at(100)), "the sale")
	p.minutes(4, 3) // to 44
	p.want(42, false, "since 2026-03-01 00:3")

	trained := trainedOn(t, p.rng, 0)
	p.champion = drift.Champion{Version: "2", Artifact: "bbbb", Since: p.at.Add(-10 * time.Second), Training: func() (map[string]*drift.Baseline, error) { return trained, nil }}
	p.minutes(6, 3) // to 50
	p.want(48, false, "since 2026-03-01 00:3")
	p.restart()
	p.minutes(4, 0)
	p.want(52, false, "training of version 2 (bbbb)")
	p.minutes(4, 3)
	p.want(56, false, "since 2026-03-01 00:3")

	p.champion = drift.Champion{Version: "3", Since: p.at, Training: func() (map[string]*drift.Baseline, error) { return nil, nil }}
	p.minutes(2, 0) // to 60
	p.restart()
	p.minutes(28, 0)
	p.want(86, false, "2026-03-01 00:5")
	p.minutes(4, 3) // to 92
	p.want(90, false, "since 2026-03-01 00:3")
	if got := states()["x"]; got != "accepted" {
		t.Errorf("x is %q", got)
	}
	define(t, p.registry, drift.MonitorKind, "watch", `{"model":"churn","window":"1m","importance":{"x":0.9}}`, "")
	p.minutes(4, 3) // to 96
	p.want(94, false, "since 2026-03-01 00:3")
	p.minutes(10, 3) // to 106
	p.want(102, true, "2026-03-01 00:5")
	f := ask(t, p.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: p.begin, To: p.begin.Add(24 * time.Hour)})
	var all []string
	for i, column := range cells(t, f, "column") {
		if column == "x" && cells(t, f, "detector")[i] == "ks" {
			all = append(all, cells(t, f, "state")[i])
		}
	}
	if slices.Sort(all); !slices.Equal(all, []string{"lapsed", "open"}) {
		t.Errorf("once that is over: %q", all)
	}
}

// What comes after a column was accepted is none of what was accepted, however
// often that is counted anew: an incident that is open stays so.
func TestLaterDriftIsNotAccepted(t *testing.T) {
	p := newPromoted(t)
	define(t, p.registry, drift.MonitorKind, "watch", `{"model":"churn","window":"1m"}`, "")
	p.champion = drift.Champion{Version: "1", Artifact: "aaaa", Since: p.begin}
	p.minutes(34, 0)
	p.minutes(6, 3)
	define(t, p.registry, drift.ActionKind, "sale", fmt.Sprintf(`{"do":"accept","monitor":"watch","column":"x","until":%q}`, p.begin.Add(100*time.Minute).Format(time.RFC3339)), "the sale")
	p.minutes(4, 3)   // to 44
	p.minutes(26, -3) // to 70
	p.want(66, true, "2026-03-01 00:0")
	trained := trainedOn(t, p.rng, 0)
	p.champion = drift.Champion{Version: "2", Artifact: "bbbb", Since: p.at.Add(-10 * time.Second), Training: func() (map[string]*drift.Baseline, error) { return trained, nil }}
	p.minutes(6, -3) // to 76
	p.want(74, true, "training of version 2 (bbbb)")
	p.minutes(4, 3)
	p.want(78, false, "since 2026-03-01 00:3")
	f := ask(t, p.store.Incidents, query.Request{Namespace: "test", Model: "churn", From: p.begin, To: p.begin.Add(24 * time.Hour)})
	states := map[string]bool{}
	for i, column := range cells(t, f, "column") {
		if column == "x" && cells(t, f, "detector")[i] == "ks" {
			states[cells(t, f, "state")[i]] = true
		}
	}
	if !states["accepted"] || len(states) != 2 {
		t.Errorf("incidents of x are %v", states)
	}
}

// What is accepted is watched for slow changes too, also after a changed
// definition has learnt the reference anew.
func TestAcceptedIsWatchedSlowly(t *testing.T) {
	m := newMinutes(t)
	define(t, m.reg, drift.MonitorKind, "watch", `{"view":"user","columns":["amount"],"window":"1m"}`, "")
	slowly := func(minute int) bool {
		f := ask(t, m.store.Verdicts, query.Request{Namespace: "test", View: "user", From: m.at(minute), To: m.at(minute + 1)})
		for i, name := range cells(t, f, "monitor") {
			if name == "watch" && cells(t, f, "detector")[i] == "missing_slowly" {
				return true
			}
		}
		return false
	}
	m.add(33, 0)
	m.add(26, 1.5) // to 59
	define(t, m.reg, drift.ActionKind, "sale", fmt.Sprintf(`{"do":"accept","monitor":"watch","column":"amount","until":%q}`, m.at(200).Format(time.RFC3339)), "the sale")
	m.look()
	m.add(4, 1.5) // to 63
	if !slowly(61) {
		t.Fatal("what is accepted is not watched")
	}
	define(t, m.reg, drift.MonitorKind, "watch", `{"view":"user","columns":["amount"],"window":"1m","importance":{"amount":0.9}}`, "")
	m.add(4, 1.5) // to 67
	m.wantVerdict(65, false, "accepted by ann")
	if !slowly(65) {
		t.Error("after a changed definition it is watched no longer")
	}
}
