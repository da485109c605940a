package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
)

// codeProtected is the code of a question about a column that its caller may
// not see.
const codeProtected = "column_protected"

// veil is what somebody does not see plainly in a namespace. nil hides nothing.
type veil struct {
	actions map[string]string // by column: event.MaskColumn or event.DenyColumn
	all     bool              // a policy cannot be read: every column
	words   *regexp.Regexp    // finds the columns' names in a text
}

// action is what is done to a column; "" nothing.
func (v *veil) action(column string) string {
	switch {
	case v == nil:
		return ""
	case v.all:
		return event.DenyColumn
	}
	if action := v.actions[column]; action != "" {
		return action
	}
	d, _ := event.ParseDescriptor(column) // what is made of a column is hidden with it
	return v.actions[d.Column]
}

func (v *veil) hides(column string) bool { return v.action(column) != "" }

// mentions reports whether a text names a column, or might.
func (v *veil) mentions(text string) bool {
	return v != nil && (v.all || v.words.MatchString(text))
}

// newVeil compiles the search of names. A name stands in a text where no letter,
// digit or underscore is beside it.
func newVeil(actions map[string]string, all bool) *veil {
	names := slices.Sorted(maps.Keys(actions))
	for i, n := range names {
		names[i] = regexp.QuoteMeta(n)
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the longest first: of two that match, either will do
	return &veil{actions: actions, all: all, words: regexp.MustCompile(`(?:^|[^\pL\pN_])(?:` + strings.Join(names, "|") + `)(?:$|[^\pL\pN_])`)}
}

// policyBook has what policies hide, made anew when a definition has changed
// that decides it.
type policyBook struct {
	mu   sync.Mutex
	page atomic.Pointer[policyPage]
}

// policyPage is what holds as of one change of the registry.
type policyPage struct {
	changed int64
	names   map[string]*namespacePolicies
}

type namespacePolicies struct {
	policies []columnPolicy
	veils    sync.Map // string of the policies that hold for somebody → *veil
}

type columnPolicy struct {
	names   []string
	action  string
	shownTo []auth.Role
	broken  bool
}

// decisive are the kinds of definitions that decide what a policy covers.
func decisive() []string {
	return []string{event.ColumnPolicyKind, event.FeatureViewKind, event.ModelKind, features.WindowViewKind, features.OnDemandViewKind}
}

// veilOf is what a caller does not see plainly in its namespace.
func (a *App) veilOf(c auth.Caller) *veil {
	p := a.policiesOf(c.Namespace)
	if p == nil || c.May(auth.PersonalRead) {
		return nil
	}
	return p.veil(func(r auth.Role) bool { return c.Holds(r) })
}

// strictVeil is what a namespace hides from whoever has no role that sees more:
// for pages that others read later, and what leaves Kedge by itself.
func (a *App) strictVeil(namespace string) *veil {
	p := a.policiesOf(namespace)
	if p == nil {
		return nil
	}
	return p.veil(func(auth.Role) bool { return false })
}

func (a *App) policiesOf(namespace string) *namespacePolicies {
	state := a.registry.State()
	changed := state.Changed(decisive()...)
	page := a.policies.page.Load()
	if page == nil || page.changed != changed {
		page = a.policies.renew(state, changed)
	}
	return page.names[namespace]
}

func (b *policyBook) renew(state *registry.State, changed int64) *policyPage {
	b.mu.Lock()
	defer b.mu.Unlock()
	if page := b.page.Load(); page != nil && page.changed == changed {
		return page
	}
	page := &policyPage{changed: changed, names: map[string]*namespacePolicies{}}
	for _, d := range state.List(event.ColumnPolicyKind, "") {
		n := page.names[d.Namespace]
		if n == nil {
			n = &namespacePolicies{}
			page.names[d.Namespace] = n
		}
		n.policies = append(n.policies, readPolicy(state, d))
	}
	b.page.Store(page)
	return page
}

func readPolicy(state *registry.State, d registry.Definition) columnPolicy {
	spec, err := event.ParseColumnPolicy(d.Spec)
	if err != nil { // of a newer Kedge, say: nobody but administrators sees anything
		return columnPolicy{broken: true}
	}
	p := columnPolicy{names: covered(state, d.Namespace, spec.Columns), action: spec.Action}
	for _, r := range spec.ShownTo {
		p.shownTo = append(p.shownTo, auth.Role(r))
	}
	return p
}

func (n *namespacePolicies) veil(holds func(auth.Role) bool) *veil {
	apply, key := []columnPolicy{}, strings.Builder{}
	for i, p := range n.policies {
		if !slices.ContainsFunc(p.shownTo, holds) {
			apply = append(apply, p)
			key.WriteString(strconv.Itoa(i) + ",")
		}
	}
	if len(apply) == 0 {
		return nil
	}
	if v, ok := n.veils.Load(key.String()); ok {
		return v.(*veil)
	}
	actions, all := map[string]string{}, false
	for _, p := range apply {
		all = all || p.broken
		for _, name := range p.names {
			if actions[name] != event.DenyColumn {
				actions[name] = p.action
			}
		}
	}
	v, _ := n.veils.LoadOrStore(key.String(), newVeil(actions, all))
	return v.(*veil)
}

// covered are columns that a policy names, and those that definitions of the
// namespace make of them: what has one as an alias, a newer version's column
// converted from it, aggregates and on-demand features over it.
func covered(state *registry.State, namespace string, columns []string) []string {
	has := map[string]bool{}
	for _, c := range columns {
		has[c] = true
	}
	for before := -1; before != len(has); {
		before = len(has)
		v := newVeil(actionsOf(has), false)
		for _, kind := range decisive()[1:] {
			for _, d := range state.List(kind, namespace) {
				for _, made := range madeOf(d, v) {
					has[made] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(has))
}

func actionsOf(names map[string]bool) map[string]string {
	out := map[string]string{}
	for n := range names {
		out[n] = event.MaskColumn
	}
	return out
}

// madeOf are the columns that a definition makes of hidden ones. One that cannot
// be read makes none: nothing reads it.
func madeOf(d registry.Definition, v *veil) (out []string) {
	switch d.Kind {
	case event.FeatureViewKind:
		spec, err := event.ParseView(d.Spec)
		if err != nil {
			return nil
		}
		out = aliased(append(slices.Clone(spec.Keys), spec.Columns...), v)
		for _, f := range spec.Former {
			out = append(out, aliased(f.Columns, v)...)
			for to, from := range f.Convert {
				if v.mentions(from) {
					out = append(out, to)
				}
			}
		}
	case event.ModelKind:
		if spec, err := event.ParseModel(d.Spec); err == nil {
			for _, s := range spec.Signatures {
				out = append(out, aliased(s.Columns, v)...)
			}
		}
	case features.WindowViewKind:
		if spec, err := features.ParseWindow(d.Spec); err == nil {
			for _, f := range spec.Features {
				if v.hides(f.Column) {
					out = append(out, f.Name)
				}
			}
		}
	case features.OnDemandViewKind:
		if spec, err := features.ParseOnDemand(d.Spec); err == nil {
			for _, f := range spec.Features {
				if v.mentions(f.Expr) {
					out = append(out, f.Name)
				}
			}
		}
	}
	return out
}

func aliased(fields []event.FieldSpec, v *veil) (out []string) {
	for _, f := range fields {
		if slices.ContainsFunc(f.Aliases, v.hides) {
			out = append(out, f.Name)
		}
	}
	return out
}

// checkPolicy refuses roles that there are not.
func checkPolicy(raw json.RawMessage) error {
	spec, err := event.ParseColumnPolicy(raw)
	if err != nil {
		return err
	}
	for _, r := range spec.ShownTo {
		if _, err := auth.ParseRole(r); err != nil {
			return fmt.Errorf("shown_to: %w", err)
		}
	}
	return nil
}

// refuseColumn refuses a caller and writes it down.
func (a *App) refuseColumn(ctx context.Context, c auth.Caller, what, column string) error {
	a.record(a.columnRefusal(ctx, c, what, column))
	return web.Errorf(http.StatusForbidden, codeProtected, "a column policy of namespace %q protects %s from %s: ask without it, or ask an administrator for a role that the policy names", c.Namespace, column, c.Subject)
}

func (a *App) columnRefusal(ctx context.Context, c auth.Caller, what, column string) auth.Decision {
	return auth.Decision{Subject: c.Subject, Method: c.Method, Namespace: c.Namespace, Permission: auth.PersonalRead, What: what,
		Change: auth.Change{Target: "column " + column}, Status: http.StatusForbidden, Reason: codeProtected, TraceID: telemetry.TraceID(ctx)}
}

// refuseRaw refuses records as they came, in which any column may stand.
func (a *App) refuseRaw(ctx context.Context, what string) error {
	c := auth.From(ctx)
	if a.veilOf(c) == nil {
		return nil
	}
	return a.refuseColumn(ctx, c, what, "what records hold")
}
