package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
)

// KindFunc answers one kind of question.
type KindFunc func(context.Context, query.Request) ([]query.Frame, error)

// kinds wires every kind that this process can answer.
func (a *App) kinds() map[string]KindFunc {
	k := map[string]KindFunc{"catalog": a.answerCatalog, "search": a.answerSearch, "rollouts": a.answerRollouts, "audit": a.answerAudit}
	a.panelKinds(k)
	if a.store != nil {
		k["throughput"] = a.store.Throughput
		k["ingest_lag"] = a.store.IngestLag
		k["ledger"] = a.store.Ledger
		k["dead_letters"] = a.store.DeadLetters
		k["disk"] = a.store.Disk
		k["freshness"] = a.answerFreshness
		k["column_freshness"] = a.answerColumnFreshness
		k["freshness_series"] = a.answerFreshnessSeries
		k["rows"] = a.store.Rows
		k["summary"] = a.store.Summaries
		k["score_distribution"] = a.store.ScoreDistribution
		k["label_coverage"] = a.answerLabelCoverage
		k["verdicts"] = a.store.Verdicts
		k["drift"] = a.store.Drift
		k["quality"] = a.store.Quality
	}
	a.driftKinds(k)
	a.trainingKinds(k)
	if a.features != nil && a.features.monitor != nil {
		k["consistency"] = a.features.monitor.Consistency
	}
	return k
}

// answer checks a request against the table of kinds and asks whoever answers
// that kind, as the caller. What column policies hide from it is not in the
// answer.
func (a *App) answer(ctx context.Context, kinds map[string]KindFunc, c auth.Caller, r query.Request) ([]query.Frame, error) {
	return a.answerVeiled(ctx, kinds, c, a.veilOf(c), r)
}

func (a *App) answerVeiled(ctx context.Context, kinds map[string]KindFunc, c auth.Caller, v *veil, r query.Request) ([]query.Frame, error) {
	kind, ok := query.KindNamed(r.Kind)
	f, wired := kinds[r.Kind]
	if !ok || !wired {
		return nil, web.Errorf(http.StatusBadRequest, "unknown_kind", "kind %q: want one of %s", r.Kind, strings.Join(kindNames(kinds), ", "))
	}
	if r.Namespace == "" {
		r.Namespace = c.Namespace
	}
	if r.Namespace != c.Namespace {
		a.refused(ctx, c, auth.QueryRead, "query "+r.Kind, "namespace "+r.Namespace)
		return nil, web.Errorf(http.StatusForbidden, auth.CodeForbidden, "namespace %q: this caller reads %q", r.Namespace, c.Namespace)
	}
	if err := checkReads(kind, r); err != nil {
		return nil, err
	}
	if err := a.checkVeiled(ctx, c, v, kind, r); err != nil {
		return nil, err
	}
	if err := a.checkRecords(ctx, c, v, kind, r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.cfg.HTTP.QueryTimeout))
	defer cancel()
	frames, err := f(ctx, r)
	if err != nil && ctx.Err() == nil {
		err = a.explainOutside(ctx, r, err)
	}
	if err != nil {
		return nil, err
	}
	return countedRecords(c, kind, v.veiled(kind, frames)), nil
}

// labelJoin is how labels find a model's predictions: by id, if nobody said.
func (a *App) labelJoin(namespace, model string) (store.LabelJoin, error) {
	d, ok := a.registry.State().Get(event.ModelKind, namespace, model)
	if !ok {
		return store.LabelJoin{}, nil
	}
	spec, err := event.ParseModel(d.Spec)
	if err != nil {
		return store.LabelJoin{}, fmt.Errorf("labels of model %s: %w", model, err)
	}
	return store.JoinOf(spec.Labels), nil
}

func (a *App) answerLabelCoverage(ctx context.Context, r query.Request) ([]query.Frame, error) {
	j, err := a.labelJoin(r.Namespace, r.Model)
	if err != nil {
		return nil, err
	}
	return a.store.LabelCoverage(ctx, r, j)
}

func kindNames(kinds map[string]KindFunc) []string {
	var out []string
	for _, k := range query.Kinds() {
		if kinds[k.Name] != nil {
			out = append(out, k.Name)
		}
	}
	return out
}

// checkReads refuses members that the kind does not read, and asks for the
// subject that it needs.
func checkReads(kind query.Kind, r query.Request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	allowed := append([]string{"kind", "namespace", "from", "to"}, kind.Reads...)
	switch kind.Subject {
	case query.ViewOnly:
		allowed = append(allowed, "view")
	case query.ModelOnly:
		allowed = append(allowed, "model")
	case query.ViewOrModel, query.Optional:
		allowed = append(allowed, "view", "model")
	}
	for m := range members {
		if !slices.Contains(allowed, m) {
			return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "kind %s does not read %q: it reads %s", kind.Name, m, strings.Join(allowed[1:], ", "))
		}
	}
	return checkSubject(kind, r)
}

func checkSubject(kind query.Kind, r query.Request) error {
	missing := map[query.Subject]bool{
		query.ViewOnly: r.View == "", query.ModelOnly: r.Model == "", query.ViewOrModel: r.View == "" && r.Model == "",
	}[kind.Subject]
	if missing {
		want := map[query.Subject]string{query.ViewOnly: "a view", query.ModelOnly: "a model", query.ViewOrModel: "a view or a model"}[kind.Subject]
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "kind %s needs %s", kind.Name, want)
	}
	if r.View != "" && r.Model != "" {
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "both a view and a model are named: name one")
	}
	return nil
}

// webError gives the rooms' errors their place among HTTP's.
func webError(err error) error {
	switch {
	case errors.Is(err, store.ErrInvalid), errors.Is(err, registry.ErrInvalid):
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
	case errors.Is(err, store.ErrUnknown):
		return web.Errorf(http.StatusNotFound, web.CodeNotFound, "%w", err)
	case errors.Is(err, store.ErrOutside):
		return web.Errorf(http.StatusConflict, web.CodeOutside, "%w", err)
	case errors.Is(err, registry.ErrStale):
		return web.Errorf(http.StatusConflict, web.CodeConflict, "%w", err)
	}
	return err
}

// answerCatalog lists models and views from the registry, or the columns of
// one of them.
func (a *App) answerCatalog(_ context.Context, r query.Request) ([]query.Frame, error) {
	state := a.registry.State()
	if r.View != "" {
		return catalogColumns(state, event.FeatureViewKind, r.Namespace, r.View)
	}
	if r.Model != "" {
		return catalogColumns(state, event.ModelKind, r.Namespace, r.Model)
	}
	var f catalogFrame
	for _, d := range append(state.List(event.ModelKind, r.Namespace), state.List(event.FeatureViewKind, r.Namespace)...) {
		s, err := subjectOf(d)
		if err != nil {
			return nil, err
		}
		f.add(d, s)
	}
	return []query.Frame{f.frame()}, nil
}

// subject is what the catalogue says of a definition.
type subject struct {
	event.Ownership
	Origin   event.Origin
	Keys     []event.FieldSpec
	Columns  []event.FieldSpec
	Versions []string
	Retired  bool
}

func subjectOf(d registry.Definition) (subject, error) {
	if d.Kind == event.FeatureViewKind {
		v, err := event.ParseView(d.Spec)
		if err != nil {
			return subject{}, fmt.Errorf("view %s: %w", d.Name, err)
		}
		return subject{Ownership: v.Ownership, Origin: v.Origin, Keys: v.Keys, Columns: v.Columns, Retired: v.Retired}, nil
	}
	m, err := event.ParseModel(d.Spec)
	if err != nil {
		return subject{}, fmt.Errorf("model %s: %w", d.Name, err)
	}
	s := subject{Ownership: m.Ownership, Origin: m.Origin, Retired: m.Retired}
	for _, sig := range m.Signatures {
		s.Versions = append(s.Versions, sig.Versions...)
		for _, c := range sig.Columns {
			if !slices.ContainsFunc(s.Columns, func(o event.FieldSpec) bool { return o.Name == c.Name }) {
				s.Columns = append(s.Columns, c)
			}
		}
	}
	slices.Sort(s.Versions)
	return s, nil
}

// catalogFrame collects subjects as columns.
type catalogFrame struct {
	namespaces, kinds, names, origins, owners, tiers, versions, keys []string
	columns                                                          []int64
	changed                                                          []time.Time
}

func (f *catalogFrame) add(d registry.Definition, s subject) {
	kind := "model"
	if d.Kind == event.FeatureViewKind {
		kind = "view"
	}
	f.namespaces, f.kinds, f.names = append(f.namespaces, d.Namespace), append(f.kinds, kind), append(f.names, d.Name)
	f.origins, f.owners, f.tiers = append(f.origins, string(s.Origin)), append(f.owners, s.Owner), append(f.tiers, s.Tier)
	f.versions, f.keys = append(f.versions, strings.Join(s.Versions, ", ")), append(f.keys, strings.Join(names(s.Keys), ", "))
	f.columns, f.changed = append(f.columns, int64(len(s.Columns))), append(f.changed, time.UnixMicro(d.Time).UTC())
}

func names(fields []event.FieldSpec) []string {
	var out []string
	for _, f := range fields {
		out = append(out, f.Name)
	}
	return out
}

func (f *catalogFrame) frame() query.Frame {
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: orNone(v)}
	}
	return query.Frame{Name: "catalog", Type: query.Table, Columns: []query.Column{
		text("kind", f.kinds), text("name", f.names), text("origin", f.origins), text("owner", f.owners), text("tier", f.tiers),
		text("versions", f.versions), text("keys", f.keys), text("namespace", f.namespaces),
		{Name: "columns", Type: query.Int, Values: orNone(f.columns)},
		{Name: "changed", Type: query.Time, Values: orNone(f.changed)},
	}}
}

func orNone[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

func catalogColumns(state *registry.State, kind, namespace, name string) ([]query.Frame, error) {
	d, ok := state.Get(kind, namespace, name)
	if !ok {
		return nil, web.Errorf(http.StatusNotFound, web.CodeNotFound, "no %s named %q in namespace %q", kind, name, namespace)
	}
	s, err := subjectOf(d)
	if err != nil {
		return nil, err
	}
	var column, typ, role, about []string
	add := func(part string, fields []event.FieldSpec) {
		for _, f := range fields {
			column, typ, role, about = append(column, f.Name), append(typ, f.Type.String()), append(role, part), append(about, f.Description)
		}
	}
	add("key", s.Keys)
	add("value", s.Columns)
	return []query.Frame{{Name: name, Type: query.Table, Revision: d.Version, Columns: []query.Column{
		{Name: "column", Type: query.Text, Values: orNone(column)}, {Name: "type", Type: query.Text, Values: orNone(typ)},
		{Name: "role", Type: query.Text, Values: orNone(role)}, {Name: "description", Type: query.Text, Values: orNone(about)},
	}}}, nil
}
