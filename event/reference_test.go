package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
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
