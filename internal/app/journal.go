package app

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// AuditTopic is the log of who did what.
const AuditTopic = "kedge.audit"

// auditWait is how long a change waits for its entry. Where the log does not
// take it, the entry goes to the process's log.
const auditWait = 5 * time.Second

// openJournal opens the audit.
func (a *App) openJournal(ctx context.Context) error {
	log, err := a.client.OpenLog(ctx, AuditTopic)
	if err != nil {
		return err
	}
	a.journal = auth.NewJournal(log, func(e auth.Entry, err error) {
		a.sc.Log.Error("an audit entry was not written", telemetry.LogError, err, "subject", e.Subject, "namespace", e.Namespace, "what", e.What, "target", e.Target, "allowed", e.Allowed, "status", e.Status)
	})
	a.auditLog = log
	return nil
}

// record writes what the door decided: changes before their caller goes on,
// refusals soon.
func (a *App) record(d auth.Decision) {
	e := d.Entry(time.Now())
	if !d.Allowed {
		a.journal.Refused(e)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), auditWait) // the caller may have gone, the change has happened
	defer cancel()
	if err := a.journal.Append(ctx, e); err != nil {
		a.sc.Log.Error("an audit entry was not written", telemetry.LogError, err, "subject", e.Subject, "namespace", e.Namespace, "what", e.What, "target", e.Target, "allowed", true, "status", e.Status)
	}
}

// forbid refuses a known caller what its question takes beyond its route's
// permission, and writes it down.
func (a *App) forbid(ctx context.Context, c auth.Caller, need auth.Permission, what, target string) error {
	a.refused(ctx, c, need, what, target)
	return auth.Forbidden(c, need)
}

// refused writes down what a known caller was refused behind an open route.
func (a *App) refused(ctx context.Context, c auth.Caller, need auth.Permission, what, target string) {
	a.record(auth.Decision{Subject: c.Subject, Method: c.Method, Namespace: c.Namespace, Permission: need, What: what,
		Change: auth.Change{Target: target}, Status: http.StatusForbidden, Reason: auth.CodeForbidden, TraceID: telemetry.TraceID(ctx)})
}

// crossed writes down what a page of another origin, or a name that was made to
// point here, had a browser send: nobody has asked yet who that is.
func (a *App) crossed(r *http.Request, e *web.Error) {
	if !a.opened.Load() {
		return // there is no journal yet, and nothing answers
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !a.door.Crossed(at.Addr()) {
		return
	}
	a.record(auth.Decision{What: r.Method + " " + r.URL.Path[:min(len(r.URL.Path), 200)], Status: e.Status, Reason: e.Code, TraceID: telemetry.TraceID(r.Context()),
		Remote: at.Addr().String(), Change: auth.Change{Target: fmt.Sprintf("host %.100q from origin %.100q", r.Host, r.Header.Get("Origin"))}})
}

// journalRoutes has what finds a planted edit.
func (a *App) journalRoutes(api *web.API) {
	web.Handle(api, huma.Operation{OperationID: "verify-audit", Method: http.MethodGet, Path: "/v1/audit/verify", Summary: "Check the audit's chain of hashes from its first entry", Tags: []string{"operation"}}, webError,
		func(ctx context.Context, _ *struct{}) (*struct{ Body auth.AuditReport }, error) {
			v, err := auth.Verify(ctx, a.auditLog)
			return &struct{ Body auth.AuditReport }{v}, err
		})
}

// answerAudit answers the kind "audit", for whoever may read it.
func (a *App) answerAudit(ctx context.Context, r query.Request) ([]query.Frame, error) {
	if c := auth.From(ctx); !c.May(auth.AuditRead) {
		return nil, a.forbid(ctx, c, auth.AuditRead, "query audit", "")
	}
	limit := 1000
	if r.Limit > 0 {
		limit = min(r.Limit, 20_000)
	}
	for name := range r.Filter {
		if name != "subject" && name != "what" && name != "allowed" {
			return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "kind audit filters by subject, what and allowed, not by %q", name)
		}
	}
	if v := r.Filter["allowed"]; v != "" && v != "true" && v != "false" { // nothing found would look as if nobody had been refused
		return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "filter allowed %.70q: want true or false", v)
	}
	found := a.journal.Newest(r.Namespace, limit, func(e *auth.Entry) bool {
		has := func(name, v string) bool { return r.Filter[name] == "" || strings.Contains(v, r.Filter[name]) }
		return (r.From.IsZero() || !e.Time.Before(r.From)) && (r.To.IsZero() || e.Time.Before(r.To)) &&
			has("subject", e.Subject) && has("what", e.What) && has("allowed", strconv.FormatBool(e.Allowed))
	})
	at, status := make([]time.Time, len(found)), make([]int64, len(found))
	names := []string{"subject", "method", "permission", "what", "target", "decision", "reason", "remote", "trace_id", "before", "after"}
	texts := make([][]string, len(names))
	for i := range found {
		e := &found[i]
		decision := "denied"
		if e.Allowed {
			decision = "allowed"
		}
		at[i], status[i] = e.Time, int64(e.Status)
		for c, v := range []string{e.Subject, e.Method, e.Permission, e.What, e.Target, decision, e.Reason, e.Remote, e.TraceID, string(e.Before), string(e.After)} {
			texts[c] = append(texts[c], v)
		}
	}
	f := query.Frame{Name: "audit", Type: query.Table, Columns: []query.Column{{Name: "time", Type: query.Time, Values: at}, {Name: "status", Type: query.Int, Values: status}}}
	for c, name := range names {
		f.Columns = append(f.Columns, query.Column{Name: name, Type: query.Text, Values: orNone(texts[c])})
	}
	return []query.Frame{f}, nil
}
