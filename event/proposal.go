package event

// Proposal says what the definitions would have to contain for some records to
// become rows. A unit that ends with proposals has decoded nothing final:
// whoever owns the definitions merges them ([Merge]) and decodes the unit
// again.
type Proposal struct {
	Kind      string     // [FeatureViewKind] or [ModelKind]
	Namespace string     //
	Name      string     // of the view or model
	Version   string     // model version whose inputs Columns are; empty for views and for a model met first in a label
	Keys      []Evidence // a view's key, in the order met
	Columns   []Evidence // value columns, in the order met; all of them when the subject is new, else only what is missing
}

// Evidence is what values say about one column.
type Evidence struct {
	Name  string
	Type  ColumnType // Unknown: only null so far
	Exact bool       // an integer that no Float64 holds was seen
	Word  bool       // only "NaN", "Infinity" or "-Infinity" so far: Float64 unless a text follows
}

// join combines what two values say. Of two that contradict each other the
// first stays, and the decoder then refuses the rest.
func (e Evidence) join(o Evidence) Evidence {
	e.Exact = e.Exact || o.Exact
	none := ColumnType{}
	switch {
	case o.Type == none:
	case e.Type == none:
		e.Type, e.Word = o.Type, o.Word
	case e.Type.List != o.Type.List || o.Type.Elem == Unknown:
	case e.Type.Elem == Unknown:
		e.Type, e.Word = o.Type, o.Word
	case e.Word && o.Type.Elem == String:
		e.Type, e.Word = o.Type, false
	case numeric(e.Type) && numeric(o.Type):
		e.Word = e.Word && o.Word
		e.Type.Elem = widest(e.Type.Elem, o.Type.Elem, e.Exact)
	}
	return e
}

func numeric(t ColumnType) bool { return t.Elem == Int64 || t.Elem == Float64 }

// widest is Float64 where either is, unless that would lose an integer.
func widest(a, b Type, exact bool) Type {
	switch {
	case a == b:
		return a
	case exact:
		return Int64
	}
	return Float64
}

// drafts finds the proposals of one unit by subject and version.
type drafts map[draftKey]*draft

type draftKey struct{ kind, name, version string }

// draft says where a proposal stands in [Unit.Proposals] and in it each column.
type draft struct {
	at      int
	columns map[string]int
}

// propose folds one record's evidence into the proposal of its subject.
func (u *Unit) propose(kind, name, version string, keys, columns []Evidence) {
	key := draftKey{kind, name, version}
	d := u.drafts[key]
	if d == nil {
		d = &draft{at: len(u.Proposals), columns: map[string]int{}}
		if u.drafts == nil {
			u.drafts = drafts{}
		}
		u.drafts[key] = d
		u.Proposals = append(u.Proposals, Proposal{Kind: kind, Namespace: u.Namespace, Name: name, Version: version})
	}
	p := &u.Proposals[d.at]
	if p.Keys == nil {
		p.Keys = append(p.Keys, keys...)
	} else {
		joinKeys(p.Keys, keys)
	}
	d.add(p, columns)
}

func (d *draft) add(p *Proposal, columns []Evidence) {
	for _, e := range columns {
		if i, ok := d.columns[e.Name]; ok {
			p.Columns[i] = p.Columns[i].join(e)
			continue
		}
		d.columns[e.Name] = len(p.Columns)
		p.Columns = append(p.Columns, e)
	}
}

func joinKeys(to, from []Evidence) {
	for i := range to {
		for _, e := range from {
			if e.Name == to[i].Name {
				to[i] = to[i].join(e)
			}
		}
	}
}
