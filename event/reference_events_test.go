package event

import (
	"encoding/json"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// putList stores a list column, where empty means null.
func (r *reference) putList(column, s string) {
	if s != "[]" {
		r.row[column] = s
	}
}

func (r *reference) columns(n *node, fields []FieldSpec, origin Origin) {
	canonical := func(s string) string { return fieldNamed(fields, s).Name }
	if n.kind != '{' {
		r.refuse(ReasonType)
		return
	}
	stored := map[string]bool{}
	var overflow []string
	for i, m := range n.members {
		name := n.names[i]
		f := fieldNamed(fields, name)
		switch {
		case f.Name == "":
			if origin == Inferred {
				r.refuse("unmerged")
			}
			overflow = append(overflow, n.quoted[i]+":"+m.raw)
			continue
		case f.Retired:
			r.refuse(ReasonRetracted)
		case f.Type.Elem == Unknown:
			if f.Type.List && m.kind != 0 && m.kind != '[' {
				r.refuse(ReasonType)
			}
			continue
		}
		if stored[canonical(name)] {
			r.refuse(ReasonMalformed)
		}
		stored[canonical(name)] = true
		switch {
		case m.kind == 0:
		case f.Type.List:
			r.putList("v_"+f.Name, r.list(f.Type.Elem, m))
		default:
			r.row["v_"+f.Name] = r.scalar(f.Type.Elem, m)
		}
	}
	if len(overflow) > 0 {
		r.row["overflow"] = "{" + strings.Join(overflow, ",") + "}"
	}
}

func (r *reference) envelope(n *node, known ...string) {
	r.unique(n, only(append(known, "namespace", "key", "event_time", "created", "known_at", "id", "trace")...), true)
	if ns := n.get("namespace"); ns != nil && r.text(ns) != "default" {
		r.refuse(ReasonNamespace)
	}
	t, known_at := n.get("event_time"), n.get("known_at")
	bound := time.UnixMicro(r.at).Add(r.limits.FutureBound)
	for name, m := range map[string]*node{"event_time": t, "known_at": known_at, "created": n.get("created")} {
		if m == nil {
			continue
		}
		r.row[name] = r.time(m)
		at, err := time.Parse(`"`+time.RFC3339Nano+`"`, r.row[name])
		if name != "created" && err == nil && at.After(bound) {
			r.refuse(ReasonFuture)
		}
	}
	if n.get("created") == nil {
		r.row["created"] = r.row["event_time"]
	}
	r.row["appended_at"] = strconv.Quote(time.UnixMicro(r.at).UTC().Format("2006-01-02T15:04:05.999999Z"))
	if known_at == nil {
		r.row["known_at"] = r.row["appended_at"]
	}
	if m := n.get("id"); m != nil {
		r.put("id", r.word(m))
	}
	if m := n.get("trace"); m != nil {
		s := r.text(m)
		if p := strings.Split(s, "-"); len(s) == 55 && s[2] == '-' && s[35] == '-' && s[52] == '-' {
			s = s[3:35]
			_ = p
		}
		r.put("trace_id", s)
	}
}

// put stores a string column, where empty means none.
func (r *reference) put(column, s string) {
	if s != "" {
		r.row[column] = quoteJSON(s)
	}
}

func (r *reference) need(n *node, names ...string) bool {
	ok := true
	for _, name := range names {
		m := n.get(name)
		if m == nil || m.kind == 's' && m.text == "" && (name == "id" || name == "prediction_id") {
			ok = false
			r.refuse(ReasonMissing)
			if slices.Contains(n.names, name) && name == "key" {
				r.refuse(ReasonKey)
			}
		}
	}
	return ok
}

func (r *reference) features(n *node) {
	r.envelope(n, "view", "values", "delete")
	del := n.get("delete")
	deleted := del != nil && del.kind == 't'
	if del != nil && del.kind != 't' && del.kind != 'f' {
		r.refuse(ReasonType)
	}
	r.row["deleted"] = strconv.FormatBool(deleted)
	r.need(n, "view", "key", "event_time")
	if !deleted {
		r.need(n, "values")
	}
	view := n.get("view")
	if view == nil || view.kind != 's' {
		r.refuse(ReasonType)
		return
	}
	spec := &ViewSpec{}
	if s := r.specs["FeatureView/"+view.text]; s == nil || json.Unmarshal(s, spec) != nil {
		r.draft(n, CheckName(view.text))
		return
	}
	if k := n.get("key"); k != nil {
		r.key(k, spec.Keys)
	}
	if v := n.get("values"); v != nil {
		r.columns(v, spec.Columns, spec.Origin)
	}
}

// draft is an event of a subject that got no definition: it must be refused
// for something.
func (r *reference) draft(_ *node, err error) {
	if err != nil {
		r.refuse(ReasonLimit)
	}
	for _, x := range []Reason{ReasonMalformed, ReasonType, ReasonTime, ReasonMissing, ReasonKey, ReasonLimit, ReasonEncoding} {
		r.refuse(x)
	}
}

func (r *reference) key(k *node, specs []FieldSpec) {
	if k.kind != '{' {
		if len(specs) != 1 {
			r.refuse(ReasonKey)
			return
		}
		r.row["k_"+specs[0].Name] = r.scalar(specs[0].Type.Elem, k)
		return
	}
	n := 0
	seen := map[string]bool{}
	for i, m := range k.members {
		f := fieldNamed(specs, k.names[i])
		switch {
		case f.Name == "" || m.kind == 0:
			r.refuse(ReasonKey)
			continue
		case seen[f.Name]:
			r.refuse(ReasonMalformed)
		}
		seen[f.Name] = true
		n++
		r.row["k_"+f.Name] = r.scalar(f.Type.Elem, m)
	}
	if n != len(specs) {
		r.refuse(ReasonKey)
	}
}

func (r *reference) jsonKey(k *node) {
	if k.kind != '{' {
		k = &node{kind: '{', names: []string{"key"}, members: []*node{k}}
	}
	r.unique(k, same, true)
	var parts []string
	order := slices.Clone(k.names)
	sort.Strings(order)
	for _, name := range order {
		m := k.members[slices.Index(k.names, name)]
		v := ""
		switch m.kind {
		case 's':
			v = quoteJSON(m.text)
		case 't', 'f':
			v = m.text
		case 0:
			r.refuse(ReasonKey)
		default:
			v = r.integer(m, 64)
		}
		parts = append(parts, quoteJSON(name)+":"+v)
	}
	if len(parts) == 0 {
		r.refuse(ReasonKey)
	}
	if len(parts) > MaxKeys {
		r.refuse(ReasonLimit)
	}
	r.row["key"] = "{" + strings.Join(parts, ",") + "}"
}

func (r *reference) weight(n *node) {
	r.row["weight"] = "1.0"
	if w := n.get("weight"); w != nil {
		r.row["weight"] = r.float(w)
	}
}

func (r *reference) predictions(n *node) {
	r.envelope(n, "model", "version", "inputs", "output", "segments", "variant", "feature_times", "latency", "threshold",
		"group", "attributions", "weight")
	r.need(n, "model", "version", "id", "event_time", "inputs", "output")
	r.weight(n)
	if k := n.get("key"); k != nil {
		r.jsonKey(k)
	}
	if m := n.get("variant"); m != nil {
		r.put("variant", r.text(m))
	}
	if m := n.get("threshold"); m != nil {
		r.row["threshold"] = r.float(m)
	}
	r.row["group_position"] = "0"
	r.object(n, "group", map[string]func(*node){
		"id":       func(m *node) { r.put("group_id", r.word(m)) },
		"position": func(m *node) { r.row["group_position"] = r.integer(m, 32) },
	})
	latency := map[string]func(*node){}
	for _, name := range []string{"queue", "features", "compute"} {
		latency[name] = func(m *node) { r.row[name+"_ms"] = r.float(m) }
	}
	r.object(n, "latency", latency)
	r.mapping(n, "segments", r.class)
	r.mapping(n, "attributions", r.float)
	r.mapping(n, "feature_times", r.time)
	r.output(n)
	model, version := n.get("model"), n.get("version")
	name, v := "", ""
	if model != nil {
		name = r.text(model)
	}
	if version != nil {
		v = r.word(version)
	}
	if model == nil || version == nil {
		return
	}
	r.put("version", v)
	spec := &ModelSpec{}
	s := r.specs["Model/"+name]
	if s == nil || json.Unmarshal(s, spec) != nil || spec.signatureOf(v) == nil {
		r.draft(n, nil)
		return
	}
	if in := n.get("inputs"); in != nil {
		r.columns(in, spec.signatureOf(v).Columns, spec.Origin)
	}
}

func (r *reference) object(n *node, name string, members map[string]func(*node)) {
	m := n.get(name)
	if m == nil {
		return
	}
	if m.kind != '{' {
		r.refuse(ReasonType)
		return
	}
	names := []string{}
	for k := range members {
		names = append(names, k)
	}
	r.unique(m, only(names...), false)
	for k, f := range members {
		if v := m.get(k); v != nil {
			f(v)
		}
	}
}

func (r *reference) mapping(n *node, name string, value func(*node) string) {
	m := n.get(name)
	if m == nil {
		return
	}
	if m.kind != '{' {
		r.refuse(ReasonType)
		return
	}
	r.unique(m, same, false)
	var parts []string
	for i, k := range m.names {
		if m.members[i].kind != 0 {
			parts = append(parts, k+"="+value(m.members[i]))
		}
	}
	if len(parts) > 0 {
		r.row[name] = strings.Join(parts, ";")
	}
}

func (r *reference) output(n *node) {
	found := false
	o := n.get("output")
	if o == nil {
		return
	}
	r.object(n, "output", map[string]func(*node){
		"score":     func(m *node) { found = true; r.row["score"] = r.float(m) },
		"class":     func(m *node) { found = true; r.row["class"] = quoteJSON(r.class(m)) },
		"value":     func(m *node) { found = true; r.row["value"] = r.float(m) },
		"scores":    func(m *node) { found = true; r.mapping(o, "scores", r.float) },
		"quantiles": func(m *node) { found = true; r.mapping(o, "quantiles", r.float) },
		"vector":    func(m *node) { found = true; r.putList("vector", r.list(Float64, m)) },
		"items": func(m *node) {
			found = true
			r.row["items"] = m.raw
			if m.kind != '[' {
				r.refuse(ReasonType)
			}
		},
	})
	if !found {
		r.refuse(ReasonMissing)
	}
}

func (r *reference) labels(n *node) {
	r.envelope(n, "model", "prediction_id", "label", "weight")
	r.need(n, "model", "event_time")
	r.weight(n)
	if m := n.get("model"); m != nil && CheckName(r.text(m)) != nil {
		r.refuse(ReasonLimit)
	}
	if k := n.get("key"); k != nil {
		r.jsonKey(k)
	}
	pid := n.get("prediction_id")
	if pid != nil {
		r.put("prediction_id", r.word(pid))
	}
	if pid == nil || pid.text == "" {
		r.need(n, "key")
	}
	i := slices.Index(n.names, "label")
	if i < 0 {
		r.refuse(ReasonMissing)
		return
	}
	r.row["withdrawn"] = strconv.FormatBool(n.members[i].kind == 0)
	switch m := n.members[i]; m.kind {
	case 0:
	case 't':
		r.row["label"] = "1.0"
	case 'f':
		r.row["label"] = "0.0"
	case 's':
		if m.text == "NaN" || strings.TrimPrefix(m.text, "-") == "Infinity" {
			r.row["label"] = quoteJSON(m.text)
		} else {
			r.row["label_class"] = quoteJSON(m.text)
		}
	case 'n':
		r.row["label"] = r.float(m)
	default:
		r.refuse(ReasonType)
	}
}

// rowOf shows a decoded row the way the reference does.
func rowOf(b *Batch, i int) map[string]string {
	row := map[string]string{}
	for k, f := range b.Schema.Fields {
		c, name := &b.Columns[k], f.ColumnName()
		switch {
		case name[0] == '_':
		case c.Names != nil:
			var parts []string
			for from, to := c.Span(i); from < to; from++ {
				item := string(AppendValue(nil, c.Items.Value(int(from))))
				if c.Type.Elem == StringMap {
					item = c.Items.text(int(from))
				}
				parts = append(parts, c.Names.text(int(from))+"="+item)
			}
			if len(parts) > 0 {
				row[name] = strings.Join(parts, ";")
			}
		case c.Null(i):
		case c.Type.List && len(c.Value(i).List) == 0: // as null
		case f.Role == System && (f.Type.Elem == String || f.Type.Elem == JSON) && !f.Nullable && len(c.Str(i)) == 0:
		default:
			row[name] = string(AppendValue(nil, c.Value(i)))
		}
	}
	return row
}
