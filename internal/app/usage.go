package app

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// usages collects who uses which view.
type usages struct {
	view, user, kind, how, columns []string
	shared                         []int64
}

func (u *usages) add(view, user, kind, how string, columns []string) {
	slices.Sort(columns)
	u.view, u.user, u.kind, u.how = append(u.view, view), append(u.user, user), append(u.kind, kind), append(u.how, how)
	u.columns, u.shared = append(u.columns, strings.Join(columns, ", ")), append(u.shared, int64(len(columns)))
}

// answerUsage lists who uses a view: the feature services that name it, and the
// models whose inputs are called like its features. The second is a likeness of
// names, and the answer says so.
func (a *App) answerUsage(_ context.Context, r query.Request) ([]query.Frame, error) {
	if r.Model != "" {
		return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "usage is of a view: name one, or none for all")
	}
	var u usages
	state := a.registry.State()
	for _, d := range state.List(event.FeatureViewKind, r.Namespace) {
		if r.View != "" && r.View != d.Name {
			continue
		}
		view, err := subjectOf(d)
		if err != nil {
			continue // told of where it was defined
		}
		for _, s := range state.List(features.FeatureServiceKind, r.Namespace) {
			if named, ok := serviceUses(s.Spec, d.Name, view); ok {
				u.add(d.Name, s.Name, "feature service", "its definition names it", named)
			}
		}
		for _, m := range state.List(event.ModelKind, r.Namespace) {
			model, err := subjectOf(m)
			if err != nil {
				continue
			}
			if same := sameNames(d.Name, view.Columns, model.Columns); len(same) > 0 {
				u.add(d.Name, m.Name, "model", "its inputs have the same names", same)
			}
		}
	}
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: orNone(v)}
	}
	return []query.Frame{{Name: "usage", Type: query.Table, Columns: []query.Column{text("view", u.view), text("used_by", u.user), text("kind", u.kind),
		{Name: "features", Type: query.Int, Values: orNone(u.shared)}, text("names", u.columns), text("how", u.how)}}}, nil
}

// serviceUses lists the features of a view that a service serves.
func serviceUses(spec []byte, view string, s subject) (named []string, ok bool) {
	var service features.ServiceSpec
	if event.DecodeStrict(spec, &service) != nil {
		return nil, false
	}
	for _, f := range service.Features {
		name, feature, one := strings.Cut(f, ":")
		switch {
		case name != view:
		case one:
			named = append(named, feature)
		default:
			for _, c := range s.Columns {
				named = append(named, c.Name)
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(named))), len(named) > 0
}

// sameNames are the columns of a view that inputs are called like: by their own
// name, or "view__feature" and "view:feature" as feature services write it.
func sameNames(view string, columns, inputs []event.FieldSpec) (out []string) {
	for _, c := range columns {
		names := []string{c.Name, view + "__" + c.Name, view + ":" + c.Name}
		if slices.ContainsFunc(inputs, func(i event.FieldSpec) bool { return slices.Contains(names, i.Name) }) {
			out = append(out, c.Name)
		}
	}
	return out
}
