package features

import (
	"context"
	"net/http"

	"github.com/kedge-ml/kedge/event"
)

// answer turns one request into a response. Its memory is reused; everything
// it reads of the tables it copies first.
type answer struct {
	req    request
	keys   []keyColumn
	asked  []Keys   // per plan view
	rows   []Rows   // per plan view
	states [][]byte // per plan view, per row: a Status; NullValue does not occur
	tails  []tail   // per plan view
	plain  []bool   // per plan view: every row is present and has the plan's layout
	key    []byte
	status []byte
	out    []byte
	n      int        // entity rows
	served *ServedLog // nil: nothing is written down
	picks  []pick     // of this request, for served
	hides  Hides      // from whoever asks
}

// tail is what follows the values of every feature of a view.
type tail struct {
	text []byte // `],"statuses":[…],"event_timestamps":[…]}` when no value is null
	rest int    // where the text goes on after the statuses
}

// keyColumn is one member of the request that is a join key.
type keyColumn struct {
	name   string // the join key
	column *entityColumn
	typ    event.Type // of the first view that asks for it; Unknown: none does
}

// Limits bound what one request may ask for. The zero value of a field is not
// a limit of zero but its default.
type Limits struct {
	MaxEntities int   // rows of one request; default 10,000
	MaxFeatures int   // features of one request; default 1,000
	MaxValues   int   // entities × features; default 2,000,000
	MaxBody     int64 // bytes of a request; default 16 MiB
}

func (l Limits) orDefault() Limits {
	if l.MaxEntities == 0 {
		l.MaxEntities = 10_000
	}
	if l.MaxFeatures == 0 {
		l.MaxFeatures = 1_000
	}
	if l.MaxValues == 0 {
		l.MaxValues = 2_000_000
	}
	if l.MaxBody == 0 {
		l.MaxBody = 16 << 20
	}
	return l
}

// find resolves a.req and copies the rows that it asks for.
func (a *answer) find(ctx context.Context, b *book, lim Limits, now int64) (*plan, error) {
	p, err := b.planFor(&a.req)
	if err != nil {
		return nil, err
	}
	if a.hides != nil {
		if p, err = p.masked(a.hides); err != nil {
			return nil, err
		}
	}
	if err := a.checkEntities(b, p, lim); err != nil {
		return nil, err
	}
	if err := a.lookup(ctx, p, now); err != nil {
		return nil, err
	}
	if len(a.picks) > 0 {
		a.served.record(p, a, now)
	}
	return p, nil
}

// checkEntities finds the join keys and the number of rows.
func (a *answer) checkEntities(b *book, p *plan, lim Limits) error {
	r := &a.req
	if len(r.entities) == 0 {
		return badRequest("entities is empty: give the values of at least one join key")
	}
	a.n = len(r.entities[0].values)
	for i := range r.entities {
		if len(r.entities[i].values) != a.n {
			return badRequest("All entity rows must have the same columns.")
		}
	}
	features := len(p.features) + len(p.derived)
	switch {
	case a.n > lim.MaxEntities:
		return badRequest("%d entity rows in one request, at most %d: split the request", a.n, lim.MaxEntities)
	case features > lim.MaxFeatures:
		return badRequest("%d features in one request, at most %d: split the request", features, lim.MaxFeatures)
	case a.n*features > lim.MaxValues:
		return badRequest("%d entity rows × %d features in one request, at most %d values: split the request", a.n, features, lim.MaxValues)
	}
	for _, name := range p.request {
		if r.entity(name) == nil {
			return p.missingRequest(r)
		}
	}
	a.findKeys(b, p)
	for i := range p.views {
		if err := a.checkKeys(&p.views[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) missingRequest(r *request) error {
	var missing []string
	for _, name := range p.request {
		if r.entity(name) == nil {
			missing = append(missing, name)
		}
	}
	return notFound("RequestDataNotFoundInEntityRowsException", "Required request data source features %s not found in the entity rows, but required by feature views", pythonList(missing))
}

// pythonList writes names as Python prints a list of strings.
func pythonList(names []string) string {
	out := []byte{'['}
	for i, s := range names {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = append(append(append(out, '\''), s...), '\'')
	}
	return string(append(out, ']'))
}

// findKeys picks the members that are join keys, in the request's order. An
// entity's name stands for its join key. The rest is ignored, as Feast does.
func (a *answer) findKeys(b *book, p *plan) {
	a.keys = a.keys[:0]
	for i := range a.req.entities {
		c := &a.req.entities[i]
		name := c.name
		if p.needsRequest(name) {
			continue
		}
		if !b.joinKeys[name] {
			if name = b.entities[name]; name == "" {
				continue
			}
		}
		a.keys = append(a.keys, keyColumn{name: name, column: c, typ: p.keyType(name)})
	}
}

func (p *plan) needsRequest(name string) bool {
	for _, r := range p.request {
		if r == name {
			return true
		}
	}
	return false
}

func (p *plan) keyType(name string) event.Type {
	for i := range p.views {
		for _, f := range p.views[i].keys {
			if f.Name == name {
				return f.Type.Elem
			}
		}
	}
	return event.Unknown
}

func (a *answer) keyColumn(name string) *entityColumn {
	for i := range a.keys {
		if a.keys[i].name == name {
			return a.keys[i].column
		}
	}
	return nil
}

// checkKeys wants every part of a view's key: half a key is an error, never a
// row that was not found.
func (a *answer) checkKeys(v *planView) error {
	var missing []string
	for _, f := range v.keys {
		if c := a.keyColumn(f.Name); c == nil || len(c.values) == 0 {
			missing = append(missing, f.Name)
		}
	}
	if missing == nil {
		return nil
	}
	provided := make([]string, len(a.keys))
	for i, k := range a.keys {
		provided[i] = k.name
	}
	return badRequest("Missing join key values for keys: %s of feature view %s. Provided join_key_values: %s", pythonList(missing), v.view.Name, pythonList(provided))
}

// lookup copies the rows out of the tables and writes what all features of a
// view share: statuses and times.
func (a *answer) lookup(ctx context.Context, p *plan, now int64) error {
	for len(a.rows) < len(p.views) {
		a.asked = append(a.asked, Keys{})
		a.rows = append(a.rows, Rows{})
		a.states = append(a.states, nil)
		a.tails = append(a.tails, tail{})
		a.plain = append(a.plain, false)
	}
	a.picks = a.picks[:0]
	whole := a.served.chooseRequest()
	var round Round
	for i := range p.views {
		v := &p.views[i]
		if w := v.view.windows; w != nil && !w.live.Load() {
			return &apiError{status: http.StatusServiceUnavailable, class: "FeastError", message: "the windows of view " + v.view.Name + " are still being filled from stored rows: try again"}
		}
		keys := &a.asked[i]
		keys.Reset()
		a.rows[i].Reset()
		for row := range a.n {
			if err := a.encodeKey(v, row); err != nil {
				return err
			}
			keys.Add(a.key)
			if whole || a.served.chooseKey(a.key) {
				a.picks = append(a.picks, pick{i, row})
				if v.view.windows != nil && v.view.mixed() {
					a.rows[i].wanted = append(a.rows[i].wanted, row)
				}
			}
		}
		v.view.Look(keys, now, &a.rows[i], &round)
	}
	if err := round.Do(ctx, now); err != nil {
		return err
	}
	for i := range p.views {
		a.describe(i, &p.views[i], now)
	}
	return nil
}

func (a *answer) encodeKey(v *planView, row int) error {
	a.key = a.key[:0]
	for _, f := range v.keys {
		c := a.keyColumn(f.Name)
		var ok bool
		if a.key, ok = c.values[row].appendKey(a.key, f.Type.Elem); !ok {
			return badKey(f, &c.values[row], row)
		}
	}
	return nil
}

func badKey(f event.Field, v *entityValue, row int) error {
	if v.kind == kindNull {
		return badRequest("Entity key %s is null in row %d: a key has no null", f.Name, row)
	}
	text := v.appendJSON(nil)
	if len(text) > 80 {
		text = append(text[:77], "..."...)
	}
	return badRequest("Entity key %s in row %d: invalid literal for %s: %s", f.Name, row, f.Type, text)
}
