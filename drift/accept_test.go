package drift_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
)

// minuteStream writes minutes of a view "user" and lets a scheduler look at them.
type minuteStream struct {
	*stream
	reg   *registry.Registry
	sch   *drift.Scheduler
	rng   *rand.Rand
	begin time.Time
	n     int // minutes written
	looks int
}

func newMinutes(t *testing.T) *minuteStream {
	t.Helper()
	m := &minuteStream{stream: newStream(t), reg: openRegistry(t), rng: rand.New(rand.NewPCG(21, 22)), begin: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	m.restart()
	return m
}

func (m *minuteStream) restart() { m.sch = newScheduler(m.t, m.stream, m.reg) }

func (m *minuteStream) at(minute int) time.Time {
	return m.begin.Add(time.Duration(minute) * time.Minute)
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
	m.sch.Look(m.t.Context(), m.at(m.n+3).Add(time.Duration(m.looks)*time.Second))
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
	m.restart()
	m.add(12, 1.5) // to 00:54
	m.wantIncidents("once that is over", "amount", "lapsed", "open")
	_, again, sentences := m.incidents("amount")
	if again[0] != ids[0] || again[1] == ids[0] || !strings.Contains(sentences[1], "what was accepted by ann until 2026-03-01T00:50:00Z: the sale, is normal no longer") {
		t.Errorf("the incident that opened again: %q %q", again, sentences)
	}
	if drifted, reference := m.verdict(51); !drifted || strings.Contains(reference, "accepted") {
		t.Errorf("once that is over: drifted %v, held against %q", drifted, reference)
	}
	m.write(m.at(45), time.Minute, normals(m.rng, 50, 1.5), normals(m.rng, 50, 5))
	m.look()
	if drifted, reference := m.verdict(45); drifted || !strings.Contains(reference, "accepted by ann") {
		t.Errorf("late rows of the accepted time: drifted %v, held against %q", drifted, reference)
	}
	m.add(4, 0)
	m.wantIncidents("when it has gone", "amount", "lapsed", "resolved")
}

// While something is accepted another change is told.
func TestAcceptedIsNotSilent(t *testing.T) {
	m := newMinutes(t)
	m.add(33, 0)
	m.add(4, 1.5)
	define(t, m.reg, drift.ActionKind, "accept-1", `{"do":"accept","monitor":"view/user","until":"2026-03-02T00:00:00Z"}`, "the sale")
	m.look()
	m.add(3, 0)
	m.wantIncidents("when it goes back", "amount", "accepted", "open")
	if _, _, sentences := m.incidents("amount"); !strings.Contains(sentences[1], "held against what was accepted by ann") {
		t.Errorf("sentence %q", sentences[1])
	}
	m.look()
	m.look()
	m.wantIncidents("an acceptance means what was open then", "amount", "accepted", "open")
}

// What is accepted for good stays accepted, and a later change of the column is
// not accepted along with it.
func TestAcceptedForGood(t *testing.T) {
	m := newMinutes(t)
	m.add(33, 0)
	m.add(30, 1.5)
	define(t, m.reg, drift.ActionKind, "accept-1", `{"do":"accept","monitor":"view/user","column":"amount"}`, "so it is")
	m.look()
	m.add(5, 1.5)
	m.wantIncidents("after acceptance", "amount", "accepted")
	m.add(4, 4)
	m.look()
	m.wantIncidents("after another change", "amount", "accepted", "open")
	m.restart()
	m.look()
	m.wantIncidents("after a restart", "amount", "accepted", "open")
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
