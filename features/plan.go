package features

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kedge-ml/kedge/event"
)

// plan is a list of features, resolved against one book: which views to look
// up and what to take from them. It never changes.
type plan struct {
	book     *book
	views    []planView
	features []planFeature // in the order of the answer
	derived  []planDerived // on-demand features, in the order of the answer
	request  []string      // request values that on-demand features need
	names    []byte        // `"a","b"`: the features' names in the answer's metadata
	metadata []byte        // `,"feature_view_metadata":[…]`
	refs     []string      // the references, in the order asked
}

// planView is one view that the plan reads.
type planView struct {
	view   *View
	layout *layout // when the plan was made
	keys   []event.Field
}

// planFeature is one column of a view. Inputs of on-demand features that were
// not asked for themselves are not in the answer.
type planFeature struct {
	view   int // index of plan.views
	name   string
	typ    event.ColumnType
	column int // in planView.layout
	hidden bool
	masked bool // from whoever asks
}

// planDerived is one on-demand feature.
type planDerived struct {
	view    *onDemandView
	feature int   // index of view.features
	inputs  []int // per input of the view: index of plan.features
	masked  bool  // from whoever asks
}

// planKey tells plans apart: the text of the features list, or a service.
type planKey struct {
	text      string
	service   bool
	fullNames bool
}

// planCache keeps resolved plans. Requests of a program repeat themselves; a
// client that never does only makes the cache start over.
type planCache struct {
	m    atomic.Pointer[map[planKey]*plan]
	mu   sync.Mutex
	size int // bytes of the keys
}

// maxPlanText bounds the cache by the text of its keys.
const maxPlanText = 4 << 20

func (c *planCache) get(text []byte, service, fullNames bool) *plan {
	m := c.m.Load()
	if m == nil {
		return nil
	}
	return (*m)[planKey{unsafeString(text), service, fullNames}]
}

func (c *planCache) put(text []byte, service, fullNames bool, p *plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[planKey]*plan{}
	if m := c.m.Load(); m != nil && c.size+len(text) < maxPlanText {
		maps.Copy(next, *m)
	} else {
		c.size = 0
	}
	c.size += len(text) + 64
	next[planKey{string(text), service, fullNames}] = p
	c.m.Store(&next)
}

// planFor resolves what a request asks for.
func (b *book) planFor(r *request) (*plan, error) {
	service := len(r.service) > 0
	text := r.features
	if service {
		text = r.service
	}
	if p := b.plans.get(text, service, r.fullNames); p != nil {
		return p, nil
	}
	var refs []string
	if service {
		var err error
		if refs, err = b.serviceRefs(string(r.service)); err != nil {
			return nil, err
		}
	} else {
		refs = r.featureNames()
	}
	p, err := b.resolve(refs, r.fullNames)
	if err == nil {
		b.plans.put(text, service, r.fullNames, p)
	}
	return p, err
}

// serviceRefs lists a feature service's references, views spelled out.
func (b *book) serviceRefs(name string) ([]string, error) {
	s := b.services[name]
	if s == nil {
		return nil, notFound("FeatureServiceNotFoundException", "Feature service %s does not exist in project %s", name, b.namespace)
	}
	var refs []string
	for _, f := range s.Features {
		if strings.Contains(f, ":") {
			refs = append(refs, f)
			continue
		}
		if v := b.views[f]; v != nil {
			for _, c := range v.Schema.Values() {
				refs = append(refs, f+":"+c.Name)
			}
		} else if v := b.onDemand[f]; v != nil {
			for _, c := range v.spec.Features {
				refs = append(refs, f+":"+c.Name)
			}
		} else {
			return nil, b.noView(f)
		}
	}
	return refs, nil
}

func (b *book) noView(name string) error {
	if v := b.views[name]; v != nil && v.Schema.From != nil {
		return badRequest("Feature view '%s' reads the outside table %s and has no online rows: ask for its history, or send events to a view of another name", name, v.Schema.From.Table)
	}
	if b.views[name] != nil {
		return badRequest("Feature view '%s' is not served online: set online: true in its definition", name)
	}
	if b.unkept[name] {
		return badRequest("Feature view '%s' aggregates windows: a shared online store keeps none; ask a process that keeps its tables in memory", name)
	}
	return notFound("FeatureViewNotFoundException", "Feature view %s does not exist in project %s", name, b.namespace)
}

// resolve follows the order in which Feast's server meets its errors.
func (b *book) resolve(refs []string, fullNames bool) (*plan, error) {
	if len(refs) == 0 {
		return nil, badRequest("No features specified for retrieval")
	}
	parsed := make([]featureRef, len(refs))
	for i, s := range refs {
		r, ok := parseRef(s)
		if !ok {
			return nil, badRequest("Invalid feature reference '%s'. Expected format: '<feature_view>:<feature>' or '<feature_view>@<version>:<feature>'", s)
		}
		parsed[i] = r
	}
	for _, r := range parsed {
		if r.version != "" {
			return nil, badRequest("Version-qualified ref '%s@%s' not supported: a view has one version online; a new version is a view of its own", r.view, r.version)
		}
		if b.served(r.view) == nil && b.onDemand[r.view] == nil {
			return nil, b.noView(r.view)
		}
	}
	if err := checkCollisions(refs, parsed, fullNames); err != nil {
		return nil, err
	}
	p := &plan{book: b, refs: refs}
	for _, r := range parsed {
		if err := p.add(r); err != nil {
			return nil, err
		}
	}
	p.finish(fullNames)
	return p, nil
}

func checkCollisions(refs []string, parsed []featureRef, fullNames bool) error {
	seen := map[string]bool{}
	var twice []string
	for i, r := range parsed {
		name := r.feature
		if fullNames {
			name = strings.ReplaceAll(refs[i], ":", "__")
		}
		if seen[name] && !slices.Contains(twice, name) {
			twice = append(twice, name)
		}
		seen[name] = true
	}
	if len(twice) == 0 {
		return nil
	}
	hint := "To resolve this collision, either use the full feature name by setting 'full_feature_names=True', or ensure that the features in question have different names."
	if fullNames {
		hint = "To resolve this collision, please ensure that the feature views or their own features have different names. If you're intentionally joining the same feature view twice on different sets of entities, please rename one of the feature views with '.with_name'."
	}
	return &apiError{status: 400, class: "FeatureNameCollisionError", message: fmt.Sprintf("Duplicate features named %s found.\n%s", strings.Join(twice, ", "), hint)}
}

func (p *plan) add(r featureRef) error {
	if od := p.book.onDemand[r.view]; od != nil {
		return p.addDerived(od, r.feature)
	}
	at, err := p.addFeature(p.book.views[r.view], r.feature)
	if err == nil {
		p.features[at].hidden = false
	}
	return err
}

// addFeature returns the position of a feature in the plan, hidden if it is
// new.
func (p *plan) addFeature(v *View, name string) (int, error) {
	if !v.online() {
		return 0, p.book.noView(v.Name)
	}
	l := v.layout()
	column, ok := l.byName[name]
	if !ok {
		return 0, badRequest("Feature %s not found in projection %s", name, v.Name)
	}
	view := slices.IndexFunc(p.views, func(pv planView) bool { return pv.view == v })
	if view < 0 {
		view = len(p.views)
		p.views = append(p.views, planView{view: v, layout: l, keys: v.Schema.Keys()})
	}
	for i, f := range p.features {
		if f.view == view && f.name == name {
			return i, nil
		}
	}
	p.features = append(p.features, planFeature{view: view, name: name, typ: l.columns[column].typ, column: column, hidden: true})
	return len(p.features) - 1, nil
}

func (p *plan) addDerived(od *onDemandView, feature string) error {
	at := slices.IndexFunc(od.spec.Features, func(f OnDemandFeature) bool { return f.Name == feature })
	if at < 0 {
		return badRequest("Feature %s not found in projection %s", feature, od.name)
	}
	d := planDerived{view: od, feature: at}
	for _, in := range od.inputs {
		i, err := p.addFeature(in.view, in.column)
		if err != nil {
			return err
		}
		d.inputs = append(d.inputs, i)
	}
	p.derived = append(p.derived, d)
	for _, f := range od.spec.Request {
		if !slices.Contains(p.request, f.Name) {
			p.request = append(p.request, f.Name)
		}
	}
	return nil
}

// finish writes the parts of the answer that are the same for every request.
func (p *plan) finish(fullNames bool) {
	add := func(view, name string) {
		if len(p.names) > 0 {
			p.names = append(p.names, ',')
		}
		if fullNames {
			name = view + "__" + name
		}
		p.names = appendString(p.names, name)
	}
	for _, f := range p.features {
		if !f.hidden {
			add(p.views[f.view].view.Name, f.name)
		}
	}
	for _, d := range p.derived {
		add(d.view.name, d.view.spec.Features[d.feature].Name)
	}
	p.metadata = append(p.metadata, `,"feature_view_metadata":[`...)
	for i, v := range p.views {
		if i > 0 {
			p.metadata = append(p.metadata, ',')
		}
		p.metadata = append(p.metadata, `{"name":`...)
		p.metadata = append(appendString(p.metadata, v.view.Name), '}')
	}
	p.metadata = append(p.metadata, ']')
}
