package mlflow

import (
	"cmp"
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// searchable has values by kind ("metric", "param", "tag", "attribute") and key.
type searchable interface {
	field(kind, key string) (any, bool)
}

// filter is a conjunction of comparisons; the zero value matches everything.
type filter []comparison

type comparison struct {
	kind, key string
	op        string // =, !=, <, <=, >, >=, LIKE, ILIKE, IN, NOT IN, IS NULL, IS NOT NULL
	text      string
	list      []string
	number    float64
	isNumber  bool
	like      *regexp.Regexp
}

// kinds are the spellings of what a key belongs to.
func kindOf(s string) (string, bool) {
	switch strings.ToLower(s) {
	case "metric", "metrics":
		return "metric", true
	case "param", "params", "parameter", "parameters":
		return "param", true
	case "tag", "tags":
		return "tag", true
	case "attribute", "attributes", "attr", "run":
		return "attribute", true
	}
	return "", false
}

// tokens splits a filter: identifiers with dots and quotes, operators, texts,
// numbers, parentheses and commas.
func tokens(s string) ([]string, error) {
	pattern := regexp.MustCompile("^(?:\\s+|'(?:[^'\\\\]|\\\\.)*'|\"[^\"]*\"|[<>!]=|[=<>(),]|-?[0-9]+(?:\\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?:\\b|$)|[A-Za-z_][A-Za-z0-9_]*(?:\\.(?:`[^`]*`|\"[^\"]*\"|[A-Za-z0-9_./\\-]+))?)")
	var out []string
	for s != "" {
		t := pattern.FindString(s)
		if t == "" {
			return nil, invalid("Invalid filter near %q", s[:min(len(s), 30)])
		}
		s = s[len(t):]
		if strings.TrimSpace(t) != "" {
			out = append(out, t)
		}
	}
	return out, nil
}

// parseFilter reads MLflow's filter language. Keys without a prefix are of the
// given kind.
func parseFilter(s, plain string) (filter, error) {
	const longest = 20_000
	if len(s) > longest {
		return nil, invalid("a filter of %d characters", len(s))
	}
	ts, err := tokens(s)
	if err != nil {
		return nil, err
	}
	var f filter
	for len(ts) > 0 {
		if len(f) > 0 {
			if !strings.EqualFold(ts[0], "AND") {
				return nil, invalid("Invalid clause(s) in filter string: want AND, got %q", ts[0])
			}
			ts = ts[1:]
		}
		c, rest, err := parseComparison(ts, plain)
		if err != nil {
			return nil, err
		}
		f, ts = append(f, c), rest
	}
	return f, nil
}

func parseComparison(ts []string, plain string) (c comparison, rest []string, err error) {
	if len(ts) < 3 {
		return c, nil, invalid("Invalid clause(s) in filter string: %q", strings.Join(ts, " "))
	}
	if c.kind, c.key, err = parseKey(ts[0], plain); err != nil {
		return c, nil, err
	}
	c.op, rest = strings.ToUpper(ts[1]), ts[2:]
	switch {
	case c.op == "IS" && strings.EqualFold(rest[0], "NULL"):
		c.op = "IS NULL"
		return c, rest[1:], nil
	case c.op == "IS" && len(rest) > 1 && strings.EqualFold(rest[0], "NOT") && strings.EqualFold(rest[1], "NULL"):
		c.op = "IS NOT NULL"
		return c, rest[2:], nil
	case c.op == "NOT" && strings.EqualFold(rest[0], "IN"):
		c.op, rest = "NOT IN", rest[1:]
	}
	switch c.op {
	case "IN", "NOT IN":
		rest, err = c.parseList(rest)
	case "=", "!=", "<", "<=", ">", ">=", "LIKE", "ILIKE":
		err = c.parseValue(rest[0])
		rest = rest[1:]
	default:
		err = invalid("Invalid comparator '%s'", ts[1])
	}
	return c, rest, err
}

func parseKey(token, plain string) (kind, key string, err error) {
	prefix, name, dotted := strings.Cut(token, ".")
	if !dotted {
		return plain, strings.Trim(token, "\"`"), nil
	}
	kind, ok := kindOf(prefix)
	if !ok {
		return "", "", invalid("Invalid entity type '%s'. Valid values are metrics, params, tags, attributes", prefix)
	}
	return kind, strings.Trim(name, "\"`"), nil
}

func (c *comparison) parseList(ts []string) (rest []string, err error) {
	if len(ts) == 0 || ts[0] != "(" {
		return nil, invalid("IN wants a list in parentheses")
	}
	for i := 1; i < len(ts); i++ {
		switch ts[i] {
		case ")":
			return ts[i+1:], nil
		case ",":
		default:
			c.list = append(c.list, unquote(ts[i]))
		}
	}
	return nil, invalid("IN: the list has no end")
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') {
		return strings.ReplaceAll(s[1:len(s)-1], `\'`, `'`)
	}
	return s
}

func (c *comparison) parseValue(token string) error {
	quoted := token[0] == '\'' || token[0] == '"'
	c.text = unquote(token)
	v, err := strconv.ParseFloat(c.text, 64)
	c.number, c.isNumber = v, err == nil
	switch {
	case c.kind == "metric" && (quoted || !c.isNumber):
		return invalid("Expected numeric value type for metric. Found %s", token)
	case (c.kind == "param" || c.kind == "tag") && !quoted:
		return invalid("Expected a quoted string value for %s (e.g. 'my-value'). Got value %s", c.kind, token)
	case c.op == "LIKE" || c.op == "ILIKE":
		pattern := regexp.QuoteMeta(c.text)
		pattern = strings.ReplaceAll(strings.ReplaceAll(pattern, "%", ".*"), "_", ".")
		flags := "(?s)"
		if c.op == "ILIKE" {
			flags = "(?si)"
		}
		c.like, err = regexp.Compile(flags + "^" + pattern + "$")
		return err
	}
	return nil
}

func (f filter) match(x searchable) bool {
	for i := range f {
		if !f[i].match(x) {
			return false
		}
	}
	return true
}

func (c *comparison) match(x searchable) bool {
	v, ok := x.field(c.kind, c.key)
	switch c.op {
	case "IS NULL":
		return !ok
	case "IS NOT NULL":
		return ok
	}
	if !ok {
		return false
	}
	if n, isNumber := v.(float64); isNumber {
		return c.isNumber && ordered(c.op, cmp.Compare(n, c.number)) && n == n
	}
	text, _ := v.(string)
	switch c.op {
	case "LIKE", "ILIKE":
		return c.like.MatchString(text)
	case "IN":
		return slices.Contains(c.list, text)
	case "NOT IN":
		return !slices.Contains(c.list, text)
	}
	return ordered(c.op, cmp.Compare(text, c.text))
}

func ordered(op string, sign int) bool {
	switch op {
	case "=":
		return sign == 0
	case "!=":
		return sign != 0
	case "<":
		return sign < 0
	case "<=":
		return sign <= 0
	case ">":
		return sign > 0
	case ">=":
		return sign >= 0
	}
	return false
}

// sortBy sorts by "metrics.auc DESC" and the like; what lacks the value comes
// last. Ties keep their order.
func sortBy[T searchable](list []T, order []string, plain string) error {
	for _, clause := range slices.Backward(order) {
		words := strings.Fields(clause)
		if len(words) == 0 {
			continue
		}
		descending := false
		switch last := strings.ToUpper(words[len(words)-1]); last {
		case "ASC", "DESC":
			descending = last == "DESC"
			words = words[:len(words)-1]
		}
		kind, key, err := parseKey(strings.Join(words, " "), plain)
		if err != nil {
			return err
		}
		slices.SortStableFunc(list, func(a, b T) int { return compareField(a, b, kind, key, descending) })
	}
	return nil
}

func compareField(a, b searchable, kind, key string, descending bool) int {
	x, okX := a.field(kind, key)
	y, okY := b.field(kind, key)
	if !okX || !okY {
		return cmp.Compare(b2i(okY), b2i(okX))
	}
	sign := 0
	switch v := x.(type) {
	case float64:
		w, _ := y.(float64)
		sign = cmp.Compare(v, w)
	case string:
		w, _ := y.(string)
		sign = cmp.Compare(v, w)
	}
	if descending {
		return -sign
	}
	return sign
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// paged cuts one page out of a list; the token is where the next one begins.
func paged[T any](list []T, token string, limit, most int) (page []T, next string, err error) {
	if limit <= 0 || limit > most {
		limit = min(most, 1000)
	}
	at := 0
	if token != "" {
		text, err := base64.URLEncoding.DecodeString(token)
		if err == nil {
			at, err = strconv.Atoi(string(text))
		}
		if err != nil || at < 0 {
			return nil, "", invalid("Invalid page token %q", token)
		}
	}
	at = min(at, len(list))
	end := min(at+limit, len(list))
	if end < len(list) {
		next = base64.URLEncoding.EncodeToString(strconv.AppendInt(nil, int64(end), 10))
	}
	return list[at:end], next, nil
}
