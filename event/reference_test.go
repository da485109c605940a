package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The reference decoder: encoding/json, maps and one rule after the other. It
// shares no parsing with the decoder, and knows definitions by their specs.

// node is a JSON value.
type node struct {
	kind    byte // { [ s n t f 0 (null)
	text    string
	raw     string
	names   []string
	quoted  []string // names as written
	members []*node  // of objects and arrays
}

func (n *node) get(name string) *node {
	for i, m := range n.names {
		if m == name && n.members[i].kind != 0 {
			return n.members[i]
		}
	}
	return nil
}

// reference is one record's verdict: a row by column name, or all reasons it
// could be refused for.
type reference struct {
	specs   map[string]json.RawMessage // "kind/name" → spec
	row     map[string]string
	reasons []Reason
	limits  DecoderConfig
	at      int64
}

func (r *reference) refuse(x Reason) string {
	r.reasons = append(r.reasons, x)
	return ""
}

func (r *reference) parse(text []byte) *node {
	switch {
	case len(text) > r.limits.MaxRecordBytes:
		r.refuse(ReasonTooLarge)
		return nil
	case !utf8.Valid(text):
		r.refuse(ReasonEncoding)
		if len(text) == 0 {
			r.refuse(ReasonMalformed)
		}
		return nil
	case !json.Valid(text):
		r.refuse(ReasonMalformed)
		r.refuse(ReasonEncoding) // may be noticed first
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	n := r.build(dec, text, 0)
	if n.kind != '{' {
		r.refuse(ReasonType)
	}
	return n
}

func (r *reference) build(dec *json.Decoder, text []byte, depth int) *node {
	from := dec.InputOffset()
	tok, _ := dec.Token()
	n := &node{}
	switch v := tok.(type) {
	case json.Delim:
		n.kind = byte(v)
		if depth+1 > r.limits.MaxDepth {
			r.refuse(ReasonMalformed)
		}
		for dec.More() {
			if n.kind == '{' {
				start := dec.InputOffset()
				name, _ := dec.Token()
				r.surrogates(name.(string), text[start:dec.InputOffset()])
				n.names = append(n.names, name.(string))
				n.quoted = append(n.quoted, strings.Trim(string(text[start:dec.InputOffset()]), " \t\r\n,"))
			}
			n.members = append(n.members, r.build(dec, text, depth+1))
		}
		dec.Token()
	case string:
		n.kind, n.text = 's', v
		r.surrogates(v, text[from:dec.InputOffset()])
	case json.Number:
		n.kind, n.text = 'n', v.String()
	case bool:
		n.kind, n.text = strconv.FormatBool(v)[0], strconv.FormatBool(v)
	}
	n.raw = strings.Trim(string(text[from:dec.InputOffset()]), " \t\r\n,:")
	return n
}

// surrogates finds halves of pairs, which encoding/json replaces.
func (r *reference) surrogates(s string, raw []byte) {
	meant := bytes.Count(raw, []byte("\uFFFD")) + bytes.Count(bytes.ToLower(raw), []byte(`\ufffd`))
	for i := 0; i+1 < len(raw); i++ { // an escaped backslash before ufffd is no escape
		if raw[i] == '\\' {
			if raw[i+1] == '\\' && strings.HasPrefix(strings.ToLower(string(raw[i+1:])), `\ufffd`) {
				meant--
			}
			i++
		}
	}
	if strings.Count(s, "\uFFFD") > meant {
		r.refuse(ReasonEncoding)
	}
}

// unique refuses members that stand twice; nulls count unless they are left out.
func (r *reference) unique(n *node, canonical func(string) string, nulls bool) {
	seen := map[string]bool{}
	for i, name := range n.names {
		name = canonical(name)
		if name == "" && canonical(n.names[i]) != n.names[i] || n.members[i].kind == 0 && !nulls {
			continue
		}
		if seen[name] {
			r.refuse(ReasonMalformed)
		}
		seen[name] = true
	}
}

func only(names ...string) func(string) string {
	return func(s string) string {
		if slices.Contains(names, s) {
			return s
		}
		return ""
	}
}

func same(s string) string { return s }

func fmtFloat(f float64) string { return string(AppendFloat(nil, f)) }

func (r *reference) float(n *node) string {
	switch {
	case n.kind == 's' && n.text == "NaN":
		return `"NaN"`
	case n.kind == 's' && n.text == "Infinity":
		return `"Infinity"`
	case n.kind == 's' && n.text == "-Infinity":
		return `"-Infinity"`
	case n.kind != 'n':
		return r.refuse(ReasonType)
	}
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil {
		return r.refuse(ReasonType)
	}
	return fmtFloat(f)
}

// integer reads integers, and decimals of at most 19 digits that are whole.
func (r *reference) integer(n *node, bits int) string {
	if n.kind != 'n' {
		return r.refuse(ReasonType)
	}
	if v, err := strconv.ParseInt(n.text, 10, bits); err == nil {
		return strconv.FormatInt(v, 10)
	}
	text, exp, _ := strings.Cut(strings.ToLower(n.text), "e")
	whole, frac, _ := strings.Cut(text, ".")
	e, err := strconv.Atoi("0" + strings.TrimLeft(exp, "+-"))
	if err != nil || e > 1000 {
		e = 1000
	}
	if strings.HasPrefix(exp, "-") {
		e = -e
	}
	digits, neg := strings.CutPrefix(whole+frac, "-")
	digits = strings.TrimLeft(digits, "0")
	if len(digits) > 19 || !strings.ContainsAny(n.text, ".eE") {
		return r.refuse(ReasonType)
	}
	for e -= len(frac); e < 0 && digits != ""; e++ {
		var ok bool
		if digits, ok = strings.CutSuffix(digits, "0"); !ok {
			return r.refuse(ReasonType)
		}
	}
	if digits == "" {
		return "0"
	}
	digits += strings.Repeat("0", e)
	if neg {
		digits = "-" + digits
	}
	v, err := strconv.ParseInt(digits, 10, bits)
	if err != nil {
		return r.refuse(ReasonType)
	}
	return strconv.FormatInt(v, 10)
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):\d\d)$`)

func (r *reference) time(n *node) string {
	if n.kind != 's' {
		return r.refuse(ReasonTime)
	}
	s := strings.Map(func(c rune) rune {
		if c == 't' || c == 'z' {
			return c - 0x20
		}
		return c
	}, n.text)
	if len(s) > 10 && s[10] == ' ' {
		s = s[:10] + "T" + s[11:]
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || !rfc3339.MatchString(s) || t.UnixMicro() < MinTime || t.UnixMicro() > MaxTime {
		return r.refuse(ReasonTime)
	}
	return strconv.Quote(t.UTC().Format("2006-01-02T15:04:05.999999Z"))
}

func (r *reference) text(n *node) string {
	if n.kind != 's' {
		return r.refuse(ReasonType)
	}
	return n.text
}

func (r *reference) word(n *node) string {
	if n.kind == 'n' && !strings.ContainsAny(n.text, ".eE") {
		return n.text
	}
	return r.text(n)
}

func (r *reference) class(n *node) string {
	if n.kind == 't' || n.kind == 'f' {
		return n.text
	}
	return r.word(n)
}

func quoteJSON(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s)
	out := strings.TrimSpace(b.String())
	for _, p := range [][2]string{{`\u2028`, "\u2028"}, {`\u2029`, "\u2029"}, {`\b`, `\u0008`}, {`\f`, `\u000c`}, {`\n`, `\u000a`}, {`\r`, `\u000d`}, {`\t`, `\u0009`}} {
		out = replaceEscape(out, p[0], p[1])
	}
	return out
}

// replaceEscape replaces an escape sequence, but not behind a backslash that
// is itself escaped.
func replaceEscape(s, old, new string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], old):
			b.WriteString(new)
			i += len(old)
		case s[i] == '\\':
			b.WriteString(s[i : i+2])
			i += 2
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String()
}

// scalar returns the value as AppendValue writes it.
func (r *reference) scalar(t Type, n *node) string {
	switch t {
	case Bool:
		if n.kind == 't' || n.kind == 'f' {
			return n.text
		}
		return r.refuse(ReasonType)
	case Int32:
		return r.integer(n, 32)
	case Int64:
		return r.integer(n, 64)
	case Float64:
		return r.float(n)
	case Float32:
		return r.float32(n)
	case String:
		return quoteJSON(r.text(n))
	case Timestamp:
		return r.time(n)
	case Bytes:
		b, err := base64.StdEncoding.DecodeString(r.text(n))
		if err != nil {
			return r.refuse(ReasonType)
		}
		return strconv.Quote(base64.StdEncoding.EncodeToString(b))
	}
	return n.raw
}

func (r *reference) float32(n *node) string {
	if n.kind != 'n' {
		return r.float(n)
	}
	f, err := strconv.ParseFloat(n.text, 32)
	if err != nil {
		return r.refuse(ReasonType)
	}
	return string(appendFloatBits(nil, f, 32))
}

func (r *reference) list(t Type, n *node) string {
	if n.kind != '[' {
		return r.refuse(ReasonType)
	}
	parts := []string{}
	for _, m := range n.members {
		if m.kind == 0 {
			parts = append(parts, "null")
		} else {
			parts = append(parts, r.scalar(t, m))
		}
	}
	return "[" + strings.Join(parts, ",") + "]"
}

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
