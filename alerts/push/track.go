package push

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/alerts"
)

// Alert is one label set of a rule from when its condition began to hold until
// everybody who is told knows that it does no more.
type Alert struct {
	ID          string            `json:"id"`
	Rule        string            `json:"rule"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Value       float64           `json:"value"`
	Since       time.Time         `json:"since"`            // the condition holds
	Starts      time.Time         `json:"starts,omitzero"`  // it alerts; zero while the rule is patient
	Ends        time.Time         `json:"ends,omitzero"`    // it does no more
	Missing     int               `json:"missing,omitzero"` // evaluations in a row that did not name it
	Told        map[string]string `json:"told,omitempty"`   // receiver → the newest state that it took
}

// state is what a receiver is told, and the key by which it knows a repetition.
func (a *Alert) state() string {
	if a.Ends.IsZero() {
		return fmt.Sprintf("%s/firing/%d", a.ID, a.Starts.UnixMilli())
	}
	return fmt.Sprintf("%s/resolved/%d", a.ID, a.Starts.UnixMilli())
}

// fingerprint is the same for equal labels.
func fingerprint(labels map[string]string) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(h, "%s\x00%s\x00", k, labels[k])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// maxAlerts bounds what is kept and told. Beyond it something is wrong that a
// thousand and first alert does not explain.
const maxAlerts = 1000

// afterlife is how long an Alertmanager is told that an alert has ended, and how
// long a webhook that is away may be late to learn it.
const (
	afterlife     = 15 * time.Minute
	longAfterlife = 24 * time.Hour
)

// Watch is where every alert stands. It is not safe for concurrent use.
type Watch struct {
	Namespace string // a label of every alert
	Links     string // address of a Grafana, for links; empty: none
	Alerts    map[string]*Alert
	Left      int // alerts that found no room in the last step
}

// Step takes one evaluation of a rule. err says that it could not be asked.
func (w *Watch) Step(r alerts.Rule, found []Instance, err error, now time.Time) {
	if w.Alerts == nil {
		w.Alerts = map[string]*Alert{}
	}
	var special string
	switch {
	case err != nil:
		special = "DatasourceError"
	case len(found) == 0 && r.NoData != alerts.StateOK:
		special = "DatasourceNoData"
	}
	named := map[string]bool{}
	if special != "" {
		named[w.see(r, map[string]string{"alertname": special, "rulename": r.Title}, Instance{Firing: true}, now)] = true
	}
	for _, i := range found {
		if i.NoData { // neither holds nor does not: it stays as it is
			named[w.id(r, w.labels(r, i.Labels))] = true
			continue
		}
		named[w.see(r, i.Labels, i, now)] = true
	}
	for id, a := range w.Alerts {
		if a.Rule != r.UID || named[id] || !a.Ends.IsZero() || err != nil {
			continue
		}
		if a.Missing++; a.Missing >= 2 {
			w.end(a, now)
		}
	}
}

// see notes one instance, and answers its id.
func (w *Watch) see(r alerts.Rule, own map[string]string, i Instance, now time.Time) string {
	labels := w.labels(r, own)
	id := w.id(r, labels)
	a := w.Alerts[id]
	if !i.Firing {
		if a != nil && a.Ends.IsZero() {
			w.end(a, now)
		}
		return id
	}
	if a == nil || !a.Ends.IsZero() {
		if a == nil && len(w.Alerts) >= maxAlerts {
			w.Left++
			return id
		}
		told := map[string]string{}
		if a != nil {
			told = a.Told // the state's key says whether it is news
		}
		a = &Alert{ID: id, Rule: r.UID, Labels: labels, Since: now, Told: told}
		w.Alerts[id] = a
	}
	a.Value, a.Missing, a.Annotations = min(i.Value, math.MaxFloat64), 0, w.annotations(r, labels)
	if a.Starts.IsZero() && now.Sub(a.Since) >= r.For {
		a.Starts = now
	}
	return id
}

// end ends an alert; one that nobody has heard of is forgotten.
func (w *Watch) end(a *Alert, now time.Time) {
	if a.Starts.IsZero() {
		delete(w.Alerts, a.ID)
		return
	}
	a.Ends = now
}

// Forget drops what ended and is known to all, or has been over for long.
func (w *Watch) Forget(webhooks []string, now time.Time) {
	for id, a := range w.Alerts {
		if a.Ends.IsZero() || now.Sub(a.Ends) < afterlife {
			continue
		}
		known := !slices.ContainsFunc(webhooks, func(url string) bool { return a.Told[url] != a.state() })
		if known || now.Sub(a.Ends) > longAfterlife {
			delete(w.Alerts, id)
		}
	}
}

// loud are the alerts that somebody is to know of, oldest first.
func (w *Watch) loud() []*Alert {
	var out []*Alert
	for _, a := range w.Alerts {
		if !a.Starts.IsZero() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *Alert) int {
		if c := a.Starts.Compare(b.Starts); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

func (w *Watch) id(r alerts.Rule, labels map[string]string) string {
	return r.UID + "-" + fingerprint(labels)
}

var labelName = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// labels are the instance's and the rule's, as an Alertmanager takes them: names
// without strange characters, no empty values.
func (w *Watch) labels(r alerts.Rule, own map[string]string) map[string]string {
	out := map[string]string{"alertname": r.Title, "service": "kedge", "severity": r.Severity, "rule": r.UID}
	if w.Namespace != "" {
		out["namespace"] = w.Namespace
	}
	for k, v := range own {
		if k = labelName.ReplaceAllString(k, "_"); k != "" && k[0] >= '0' && k[0] <= '9' {
			k = "_" + k
		}
		if v != "" && k != "" {
			out[k] = strings.ToValidUTF8(v, "?")
		}
	}
	return out
}

var reference = regexp.MustCompile(`{{ *\$labels\.(\w+) *}}`)

func (w *Watch) annotations(r alerts.Rule, labels map[string]string) map[string]string {
	summary := reference.ReplaceAllStringFunc(r.Summary, func(s string) string {
		return labels[reference.FindStringSubmatch(s)[1]]
	})
	if labels["rulename"] != "" {
		summary = labels["alertname"] + ": " + r.Title
	}
	out := map[string]string{"summary": summary, "description": r.Text, "runbook_url": r.Runbook()}
	if w.Links != "" {
		out["dashboard_url"] = strings.TrimSuffix(w.Links, "/") + r.PanelPath()
	}
	return out
}
