package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
)

// found is a definition in which every word of a search stands somewhere.
type found struct {
	definition  registry.Definition
	score       int
	where, text string // of the best match
	about       map[string]string
}

// How much a match is worth, by where it stands.
const (
	scoreName  = 100 // the definition's own name; twice that when it is the word
	scoreField = 20  // the name of a column, key, tag …
	scoreText  = 5   // a description, an owner, anything else
)

// answerSearch looks for words in the live definitions of a namespace: names,
// columns, descriptions, owners, tags, whatever a spec says in words. Every word
// must stand somewhere; what matches better comes first.
func (a *App) answerSearch(_ context.Context, r query.Request) ([]query.Frame, error) {
	words := strings.Fields(strings.ToLower(r.Filter["text"]))
	for name := range r.Filter {
		if !slices.Contains([]string{"text", "kind", "owner", "team", "tier"}, name) {
			return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "a search cannot be filtered by %q: want text, kind, owner, team or tier", name)
		}
	}
	limit := r.Limit
	if limit <= 0 {
		limit = 100
	}
	parsers := specParsers()
	var all []found
	for _, d := range a.registry.State().List(r.Filter["kind"], r.Namespace) {
		if _, ok := parsers[d.Kind]; !ok {
			continue // kept by Kedge itself
		}
		f, ok, err := searchOne(d, words)
		if err != nil {
			return nil, err
		}
		for _, name := range []string{"owner", "team", "tier"} {
			if want, asked := r.Filter[name]; asked && f.about[name] != want {
				ok = false
			}
		}
		if ok {
			all = append(all, f)
		}
	}
	sortFound(all)
	return []query.Frame{searchFrame(all[:min(limit, len(all))])}, nil
}

// sortFound puts the best first; what is equally good stays in its order.
func sortFound(all []found) {
	slices.SortStableFunc(all, func(x, y found) int { return cmp.Compare(y.score, x.score) })
}

// searchOne scores a definition: for each word its best match.
func searchOne(d registry.Definition, words []string) (found, bool, error) {
	f := found{definition: d, about: map[string]string{}}
	var spec any
	if err := json.Unmarshal(d.Spec, &spec); err != nil {
		return f, false, fmt.Errorf("definition %s %s: %w", d.Kind, d.Name, err)
	}
	best := make([]int, len(words))
	top := 0
	met := func(where, text string, worth int) {
		low := strings.ToLower(text)
		for i, w := range words {
			score := worth
			if !strings.Contains(low, w) {
				continue
			}
			if low == w {
				score *= 2
			}
			best[i] = max(best[i], score)
			if score > top {
				top, f.where, f.text = score, where, text
			}
		}
	}
	met("name", d.Name, scoreName)
	eachText("", spec, func(path, text string) {
		if slices.Contains([]string{"owner", "team", "tier", "description"}, path) {
			f.about[path] = text
		}
		worth := scoreText
		if path == "name" || strings.HasSuffix(path, ".name") || strings.HasPrefix(path, "tags") {
			worth = scoreField
		}
		met(path, text, worth)
	})
	for _, score := range best {
		if score == 0 {
			return f, false, nil
		}
		f.score += score
	}
	return f, true, nil
}

// eachText visits the texts of a spec with their paths, in order.
func eachText(path string, v any, visit func(path, text string)) {
	switch v := v.(type) {
	case string:
		visit(path, v)
	case []any:
		for _, item := range v {
			eachText(path, item, visit)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			inner := name
			if path != "" {
				inner = path + "." + name
			}
			eachText(inner, v[name], visit)
		}
	}
}

func searchFrame(all []found) query.Frame {
	text := func(name string, get func(found) string) query.Column {
		out := make([]string, len(all))
		for i, f := range all {
			out[i] = get(f)
		}
		return query.Column{Name: name, Type: query.Text, Values: out}
	}
	scores, changed := make([]int64, len(all)), make([]time.Time, len(all))
	for i, f := range all {
		scores[i], changed[i] = int64(f.score), time.UnixMicro(f.definition.Time).UTC()
	}
	return query.Frame{Name: "search", Type: query.Table, Columns: []query.Column{
		text("kind", func(f found) string { return f.definition.Kind }),
		text("name", func(f found) string { return f.definition.Name }),
		text("where", func(f found) string { return f.where }),
		text("text", func(f found) string { return f.text }),
		text("description", func(f found) string { return f.about["description"] }),
		text("owner", func(f found) string { return f.about["owner"] }),
		text("team", func(f found) string { return f.about["team"] }),
		{Name: "score", Type: query.Int, Values: scores},
		{Name: "changed", Type: query.Time, Values: changed},
	}}
}
