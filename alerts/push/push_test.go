package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
)

// alertmanager takes alerts as version 2 of the API documents it, and keeps them
// as an Alertmanager does: by their labels, active until endsAt has passed.
type alertmanager struct {
	t      *testing.T
	mu     sync.Mutex
	down   int // answers that fail before one succeeds
	posts  int
	bodies [][]byte
	tokens []string
	alerts map[string]postableAlert
}

var validLabel = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func (m *alertmanager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.posts++
	m.tokens = append(m.tokens, r.Header.Get("Authorization"))
	if m.down > 0 {
		m.down--
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/am/api/v2/alerts" || r.Header.Get("Content-Type") != "application/json" {
		m.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	var in []map[string]any
	b, _ := io.ReadAll(r.Body)
	m.bodies = append(m.bodies, b)
	if err := json.Unmarshal(b, &in); err != nil {
		m.t.Errorf("body %s: %v", b, err)
	}
	for _, a := range in {
		m.take(a)
	}
}

// take checks one postableAlert member by member.
func (m *alertmanager) take(a map[string]any) {
	var out postableAlert
	for k, v := range a {
		var err error
		switch k {
		case "labels":
			out.Labels = m.labelSet(k, v)
			for name, value := range out.Labels {
				if !validLabel.MatchString(name) || value == "" {
					m.t.Errorf("label %q = %q", name, value)
				}
			}
		case "annotations":
			out.Annotations = m.labelSet(k, v)
		case "startsAt":
			out.StartsAt, err = time.Parse(time.RFC3339Nano, fmt.Sprint(v))
		case "endsAt":
			out.EndsAt, err = time.Parse(time.RFC3339Nano, fmt.Sprint(v))
		case "generatorURL":
			_, err = url.ParseRequestURI(fmt.Sprint(v))
		default:
			m.t.Errorf("postableAlert has no member %q", k)
		}
		if err != nil {
			m.t.Errorf("%s: %v", k, err)
		}
	}
	if out.Labels["alertname"] == "" || out.EndsAt.Before(out.StartsAt) {
		m.t.Errorf("alert %v", a)
	}
	m.alerts[fingerprint(out.Labels)] = out
}

func (m *alertmanager) labelSet(member string, v any) map[string]string {
	out := map[string]string{}
	set, ok := v.(map[string]any)
	for name, value := range set {
		text, isText := value.(string)
		ok = ok && isText
		out[name] = text
	}
	if !ok {
		m.t.Errorf("%s: %v is no label set", member, v)
	}
	return out
}

// active says what an Alertmanager would call active.
func (m *alertmanager) active(now time.Time) (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.alerts {
		if a.EndsAt.After(now) {
			out = append(out, a.Labels["alertname"]+" "+a.Labels["column"])
		}
	}
	slices.Sort(out)
	return out
}

// hook is a webhook that remembers what it took, and how often it was offered.
type hook struct {
	mu     sync.Mutex
	answer int
	events []Event
	seen   map[string]int
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[r.Header.Get("Idempotency-Key")]++
	if h.answer != 0 {
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(h.answer)
		return
	}
	var e Event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.Key != r.Header.Get("Idempotency-Key") || e.Version != 1 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.events = append(h.events, e)
}

func (h *hook) told() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, e := range h.events {
		out = append(out, e.Status+" "+e.Labels["column"])
	}
	return strings.Join(out, ", ")
}

func (h *hook) set(answer int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

// stage is a pusher with one rule, whose answers the test decides.
type stage struct {
	t     *testing.T
	cfg   Config
	p     *Pusher
	now   time.Time
	state map[string]float64 // by column
	err   error
	am    *alertmanager
	hook  *hook
}

func newStage(t *testing.T, rule alerts.Rule) *stage {
	s := &stage{t: t, now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), state: map[string]float64{}, am: &alertmanager{t: t, alerts: map[string]postableAlert{}}, hook: &hook{seen: map[string]int{}}}
	am, web := httptest.NewServer(s.am), httptest.NewServer(s.hook)
	t.Cleanup(am.Close)
	t.Cleanup(web.Close)
	s.cfg = Config{Rules: []alerts.Rule{rule}, Receivers: []Receiver{{URL: am.URL + "/am/", Token: "a"}, {URL: web.URL, Token: "w", Webhook: true}}, Every: time.Minute, Backoff: time.Millisecond,
		Namespace: "default", Links: "http://grafana.example/", File: filepath.Join(t.TempDir(), "alerts.json"), Scope: telemetry.Discard(), Ask: s.ask}
	s.restart()
	return s
}

func (s *stage) ask(context.Context, query.Request) ([]query.Frame, error) {
	var columns []string
	var states []float64
	for c, v := range s.state {
		columns, states = append(columns, c), append(states, v)
	}
	return []query.Frame{{Name: "drift_state", Type: query.NumericLong, Columns: []query.Column{{Name: "column", Type: query.Text, Values: columns}, {Name: "state", Type: query.Float, Values: states}}}}, s.err
}

func (s *stage) restart() {
	s.t.Helper()
	p, err := New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.p = p
}

func (s *stage) look() {
	s.now = s.now.Add(time.Minute)
	s.p.Look(s.t.Context(), s.now)
}

func (s *stage) want(active, told string) {
	s.t.Helper()
	if got := strings.Join(s.am.active(s.now), ", "); got != active {
		s.t.Errorf("active in the Alertmanager: %q, want %q", got, active)
	}
	if got := s.hook.told(); got != told {
		s.t.Errorf("the webhook was told %q, want %q", got, told)
	}
}

var drifts = alerts.Rule{UID: "kedge-drift", Title: "A column drifts", Query: query.Request{Kind: "drift_state"}, Values: []string{"state"}, Severity: "warning", NoData: alerts.StateOK,
	For: time.Minute, Range: time.Hour, Summary: "{{ $labels.column }} drifts", Text: "It does.", Dashboard: "kedge-overview", Panel: "Open incidents"}

// TestTellsBeginningsAndEnds walks an alert through patience, revisions, a
// receiver that is away, a restart, a blind moment and its end: each is told
// once, under one identity.
func TestTellsBeginningsAndEnds(t *testing.T) {
	s := newStage(t, drifts)
	s.state["x"] = 2
	s.look()
	s.want("", "") // patient
	s.look()
	s.want("A column drifts x", "firing x")
	for range 3 {
		s.state["x"] = 3 // revisions
		s.look()
	}
	s.want("A column drifts x", "firing x")
	s.restart()
	s.look()
	s.want("A column drifts x", "firing x")
	s.err = errors.New("the store is away")
	s.look()
	s.look()
	s.want("A column drifts x, DatasourceError ", "firing x, firing ")
	s.err = nil
	s.look()
	s.look()
	s.hook.set(http.StatusBadGateway)
	s.am.down = 2
	delete(s.state, "x") // not named any more: once may be chance
	s.look()
	s.want("A column drifts x", "firing x, firing , resolved ")
	s.look()
	s.want("", "firing x, firing , resolved ")
	s.hook.set(0)
	s.look()
	s.want("", "firing x, firing , resolved , resolved x")
	first, last := s.hook.events[0], s.hook.events[3]
	if first.ID != last.ID || !first.StartsAt.Equal(last.StartsAt) || !last.EndsAt.After(last.StartsAt) || first.Key == last.Key {
		t.Errorf("identity: %+v, %+v", first, last)
	}
	if first.Labels["namespace"] != "default" || first.Annotations["summary"] != "x drifts" || !strings.HasSuffix(first.Annotations["runbook_url"], "kedge-drift.md") || !strings.HasPrefix(first.Annotations["dashboard_url"], "http://grafana.example/d/kedge-overview?viewPanel=") {
		t.Errorf("said: %+v", first)
	}
	for range 20 {
		s.look()
	}
	if len(s.p.watch.Alerts) != 0 {
		t.Errorf("what is over is not forgotten: %v", s.p.watch.Alerts)
	}
	s.state["x"] = 1
	s.look()
	s.look()
	if n := len(s.hook.events); n != 5 || s.hook.events[4].ID != first.ID || s.hook.events[4].Key == first.Key {
		t.Errorf("it came back: %+v", s.hook.events)
	}
	for _, token := range s.am.tokens {
		if token != "Bearer a" {
			t.Errorf("token %q", token)
		}
	}
}

// TestRepeatsUnderOneKey holds that a crash after telling and before noting it
// tells again under the same key, and that the end alone is told to who missed
// the beginning.
func TestRepeatsUnderOneKey(t *testing.T) {
	rule := drifts
	rule.For = 0
	s := newStage(t, rule)
	s.hook.set(http.StatusServiceUnavailable)
	s.state["x"] = 1
	s.look()
	before, err := os.ReadFile(s.cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	s.hook.set(0)
	s.look()
	if err := os.WriteFile(s.cfg.File, before, 0o600); err != nil { // as if it had crashed
		t.Fatal(err)
	}
	s.restart()
	s.look()
	if e := s.hook.events; len(e) != 2 || e[0].Key != e[1].Key || e[0].ID != e[1].ID {
		t.Errorf("told %+v", e)
	}
	s.hook.set(http.StatusServiceUnavailable)
	s.state["y"] = 1
	s.look()
	s.state["y"] = 0
	s.look()
	s.hook.set(0)
	s.look()
	if got := s.hook.told(); got != "firing x, firing x, resolved y" {
		t.Errorf("told %q", got)
	}
	if err := os.WriteFile(s.cfg.File, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(s.cfg); err == nil {
		t.Error("a file that cannot be read was overwritten")
	}
}

// TestAnswersOfReceivers holds which answers are final, and that a redirection is
// not followed: the token would go with it.
func TestAnswersOfReceivers(t *testing.T) {
	for answer, offered := range map[int]int{http.StatusBadRequest: 1, http.StatusUnauthorized: 2 * tries, http.StatusTooManyRequests: 2 * tries, http.StatusTemporaryRedirect: 2 * tries, http.StatusInternalServerError: 2 * tries} {
		rule := drifts
		rule.For = 0
		s := newStage(t, rule)
		s.hook.set(answer)
		s.state["x"] = 1
		s.look()
		s.look()
		n := 0
		for _, times := range s.hook.seen {
			n += times
		}
		if n != offered {
			t.Errorf("%d: offered %d times, want %d", answer, n, offered)
		}
	}
}

// TestBounded holds that a thousand alerts are told, and how many are not.
func TestBounded(t *testing.T) {
	rule := drifts
	rule.For = 0
	s := newStage(t, rule)
	for i := range maxAlerts + 50 {
		s.state[fmt.Sprint("c", i)] = 1
	}
	s.look()
	if len(s.p.watch.Alerts) != maxAlerts || s.p.watch.Left != 50 || len(s.am.alerts) != maxAlerts {
		t.Errorf("%d kept, %d left out, %d told", len(s.p.watch.Alerts), s.p.watch.Left, len(s.am.alerts))
	}
}

// TestEvaluate holds the steps for each type of frame.
func TestEvaluate(t *testing.T) {
	text := func(name string, v ...string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: v}
	}
	num := func(name string, v ...float64) query.Column {
		return query.Column{Name: name, Type: query.Float, Values: v}
	}
	seven := int64(7)
	times := query.Column{Name: "time", Type: query.Time, Values: []time.Time{{}, {}}}
	numbers, table, series := alerts.Rule{Values: []string{"v"}, Above: 1}, alerts.Rule{Values: []string{"v"}, Numeric: true, Above: 1}, alerts.Rule{Reduce: "last", Above: 1}
	for name, c := range map[string]struct {
		rule alerts.Rule
		f    query.Frame
		want string // column:firing, or error
	}{
		"numbers":                    {numbers, query.Frame{Type: query.NumericLong, Columns: []query.Column{text("column", "a", "b"), num("v", 1, 2), num("w", 9, 9)}}, "a:false b:true"},
		"a null":                     {numbers, query.Frame{Type: query.NumericLong, Columns: []query.Column{text("column", "a", "b"), {Name: "v", Type: query.Int, Values: []*int64{nil, &seven}}}}, "a:nodata b:true"},
		"a table's largest":          {table, query.Frame{Type: query.Table, Columns: []query.Column{text("column", "a", "b", "a"), num("v", 1, math.NaN(), 5)}}, "a:true b:nodata"},
		"a wide series' last":        {series, query.Frame{Type: query.TimeSeriesWide, Columns: []query.Column{times, {Name: "v", Type: query.Float, Labels: map[string]string{"column": "a"}, Values: []float64{5, 1}}, {Name: "v", Type: query.Float, Labels: map[string]string{"column": "b"}, Values: []float64{2, math.NaN()}}}}, "a:false b:true"},
		"a long series' last":        {series, query.Frame{Type: query.TimeSeriesMulti, Columns: []query.Column{times, text("column", "a", "b"), num("v", 5, 1)}}, "a:true b:false"},
		"no rows":                    {numbers, query.Frame{Type: query.NumericLong, Columns: []query.Column{text("column"), num("v")}}, ""},
		"a table that is no number":  {numbers, query.Frame{Type: query.Table, Columns: []query.Column{num("v", 1)}}, "error"},
		"a series without reduce":    {numbers, query.Frame{Type: query.TimeSeriesWide, Columns: []query.Column{times}}, "error"},
		"two with the same labels":   {numbers, query.Frame{Type: query.NumericLong, Columns: []query.Column{text("column", "a"), num("v", 1), num("v", 2)}}, "error"},
		"a heat map is no condition": {series, query.Frame{Type: query.HeatmapRows}, "error"},
	} {
		found, err := Evaluate(c.rule, []query.Frame{c.f})
		var got []string
		for _, i := range found {
			state := fmt.Sprint(i.Firing)
			if i.NoData {
				state = "nodata"
			}
			got = append(got, i.Labels["column"]+":"+state)
		}
		if err != nil {
			got = []string{"error"}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

// TestLabelsAnAlertmanagerTakes holds that strange names and values become valid.
func TestLabelsAnAlertmanagerTakes(t *testing.T) {
	w := Watch{}
	got := w.labels(drifts, map[string]string{"7th": "v", "a-b": "\xff", "empty": "", "severity": "high"})
	want := map[string]string{"alertname": "A column drifts", "service": "kedge", "severity": "high", "rule": "kedge-drift", "_7th": "v", "a_b": "?"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
