package store

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Forgotten says what a table held of an entity, and holds now.
type Forgotten struct {
	Table   string `json:"table"`
	Subject string `json:"subject,omitempty"` // view or model
	Before  int64  `json:"before"`            // rows
	After   int64  `json:"after"`
}

// Forget removes an entity from every table of a namespace, for good: rows of
// views whose key or columns have all of its parts, predictions and labels whose
// key or inputs do, labels of such predictions, and what was derived with its
// name. Dead letters that name it lose their bytes and keep their place. parts
// are the values of its key by name, as text; topics are those whose dead
// letters belong to the namespace. When it returns, no file of the engine holds
// any of it.
func (s *Store) Forget(ctx context.Context, namespace string, parts map[string]string, topics []string) ([]Forgotten, error) {
	return s.forget(ctx, namespace, parts, topics, false)
}

// Holds says what [Store.Forget] would remove; Before and After are the same.
func (s *Store) Holds(ctx context.Context, namespace string, parts map[string]string, topics []string) ([]Forgotten, error) {
	return s.forget(ctx, namespace, parts, topics, true)
}

func (s *Store) forget(ctx context.Context, namespace string, parts map[string]string, topics []string, only bool) ([]Forgotten, error) {
	var out []Forgotten
	var twins []derivedTable
	about := s.aboutEntity(namespace, parts)
	for _, name := range slices.Sorted(maps.Keys(about)) {
		f := Forgotten{Table: name}
		if t := s.tables()[name]; t != nil {
			f.Subject = t.schema.Subject
		}
		err := s.forgetFrom(ctx, &f, about[name], only, func() error { _, err := s.eraseRows(ctx, name, about[name], nil); return err })
		if err != nil {
			return out, fmt.Errorf("forget an entity in %s: %w", name, err)
		}
		out = append(out, f)
		if t := s.tables()[name]; t != nil && t.schema.Kind == event.Features {
			twins = append(twins, derivedTable{table: latestTable(t).name, where: about[name], at: position, appended: "appended_at"})
		}
	}
	for _, d := range append(twins, s.derivedAbout(namespace, parts, topics)...) {
		f := Forgotten{Table: d.table}
		there, err := s.exists(ctx, d.table)
		if err == nil && there {
			err = s.forgetFrom(ctx, &f, d.where, only, func() error {
				return s.forgetDerived(ctx, d)
			})
		}
		if err != nil {
			return out, fmt.Errorf("forget an entity in %s: %w", d.table, err)
		}
		if there {
			out = append(out, f)
		}
	}
	return out, nil
}

// forgetFrom counts, removes, and counts again.
func (s *Store) forgetFrom(ctx context.Context, f *Forgotten, where string, only bool, remove func() error) error {
	var err error
	if f.Before, err = s.countWhere(ctx, f.Table, where); err != nil || f.Before == 0 || only {
		f.After = f.Before
		return err
	}
	if err = remove(); err == nil {
		f.After, err = s.countWhere(ctx, f.Table, where)
	}
	return err
}

func (s *Store) countWhere(ctx context.Context, table, where string) (int64, error) {
	var n uint64
	err := s.conn.QueryRow(ctx, fmt.Sprintf("SELECT count() FROM %s WHERE %s", s.ref(table), where)).Scan(&n)
	return int64(n), err
}

func (s *Store) exists(ctx context.Context, table string) (bool, error) {
	var n uint64
	err := s.queryRow(ctx, "SELECT count() FROM system.tables WHERE database = {db:String} AND name = {table:String}", params{"db": s.opt.Database, "table": table}).Scan(&n)
	return n > 0, err
}

// aboutEntity has, for every table of events that can hold rows about an
// entity, the condition that finds them.
func (s *Store) aboutEntity(namespace string, parts map[string]string) map[string]string {
	out := map[string]string{}
	var predictions []string // ids of those about the entity
	for name, t := range s.tables() {
		if t.schema.Namespace != namespace || t.schema.From != nil {
			continue
		}
		var ways []string
		if own := columnsHave(t.schema, parts); own != "" {
			ways = append(ways, own)
		}
		if t.schema.Kind != event.Features {
			ways = append(ways, keyHas(parts))
		}
		if len(ways) == 0 {
			continue
		}
		out[name] = "(" + strings.Join(ways, " OR ") + ")"
		if t.schema.Kind == event.Predictions {
			predictions = append(predictions, fmt.Sprintf("SELECT id FROM %s WHERE %s", s.ref(name), out[name]))
		}
	}
	if len(predictions) == 0 {
		return out
	}
	for name, t := range s.tables() { // labels go before predictions: their names are l… and p…
		if t.schema.Namespace == namespace && t.schema.Kind == event.Labels {
			out[name] = fmt.Sprintf("(%s OR prediction_id != '' AND prediction_id IN (%s))", out[name], strings.Join(predictions, " UNION ALL "))
		}
	}
	return out
}

// columnsHave is the condition that columns of the table, of its key or beside
// it, have all of the values; "" where it has not all of the columns.
func columnsHave(schema *event.Schema, parts map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		at := slices.IndexFunc(schema.Fields[schema.KeyStart():], func(f event.Field) bool {
			return f.Name == name && !f.Type.List && !isMap(f.Type.Elem) && f.Type.Elem != event.Unknown
		})
		if at < 0 {
			return ""
		}
		f := schema.Fields[schema.KeyStart()+at]
		all = append(all, fmt.Sprintf("ifNull(toString(%s), '') = %s", chdb.QuoteIdent(columnName(f)), chdb.QuoteString(parts[name])))
	}
	return strings.Join(all, " AND ")
}

// keyHas is the condition that the JSON object in the column key has all of the
// values.
func keyHas(parts map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		all = append(all, fmt.Sprintf("if(JSONType(key, %[1]s) = 'String', JSONExtractString(key, %[1]s), JSONExtractRaw(key, %[1]s)) = %[2]s", chdb.QuoteString(name), chdb.QuoteString(parts[name])))
	}
	return "(" + strings.Join(all, " AND ") + ")"
}

// derivedTable is a table that events led to, with what of it is about an
// entity. The engine keeps the text of a mutation for long, so that one must not
// say who is forgotten: rows go by their place (at, with the time appended), or
// by a wider condition that names columns alone.
type derivedTable struct {
	table, where string
	at, appended string // columns that tell a row from all others, in the order of [position]
	blank        string // what is set where the row itself has to stay
	pick         string // without at: a column that names nobody, whose values tell the rows that go
	wider        string // without either: what goes when anything does
}

// holdsText is the condition that a column of words, JSON or HTML has a text that
// stands for itself. Numbers are looked for as JSON and HTML have texts alone:
// else any count would be somebody.
func holdsText(column, value string) string {
	var any []string
	for _, text := range spellings(value) {
		for _, form := range []string{`"%s"`, `\"%s\"`, `&#34;%s&#34;`, `>%s<`, `=%s]`} {
			any = append(any, fmt.Sprintf("position(%s, %s) > 0", column, chdb.QuoteString(fmt.Sprintf(form, text))))
		}
		any = append(any, fmt.Sprintf("endsWith(%s, %s)", column, chdb.QuoteString("="+text))) // a segment
		if strings.Trim(text, "0123456789.-+eE") != "" {
			any = append(any, fmt.Sprintf("match(%s, %s)", column, chdb.QuoteString(`(^|[^\pL\pN_])`+regexp.QuoteMeta(text)+`($|[^\pL\pN_])`)))
		}
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// spellings are how a text stands in words, JSON, JSON within JSON, and HTML of
// the first two: encoding/json and html/template write a few signs otherwise.
func spellings(text string) []string {
	inJSON := func(s string) string {
		b, _ := json.Marshal(s) // a text always has a form
		return string(b[1 : len(b)-1])
	}
	inHTML := strings.NewReplacer(`"`, "&#34;", "'", "&#39;", "&", "&amp;", "+", "&#43;", "<", "&lt;", ">", "&gt;")
	plainHTML := template.HTMLEscapeString // of drawings, where + stays
	once := inJSON(text)
	out := []string{text, once, inJSON(once), inHTML.Replace(text), inHTML.Replace(once), plainHTML(text), plainHTML(once)}
	slices.Sort(out)
	return slices.Compact(out)
}

// member is the regular expression of a JSON object's member with one of some
// values, however its writer escapes: dead letters are what anybody sent.
func member(name string, values ...string) string {
	var any []string
	for _, v := range values {
		text := asJSON(v)
		if _, err := strconv.ParseInt(v, 10, 64); err == nil {
			text += `(?:\.0+)?` // as floats are written
		}
		any = append(any, text)
	}
	return `"` + asJSON(name) + `"\s*:\s*"?(?:` + strings.Join(any, "|") + `)"?\s*[,}\]]`
}

// asJSON is the regular expression of a text within a JSON string (RFC 8259,
// section 7): each sign as it is, by its short escape, or by its UTF-16 units.
func asJSON(text string) string {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '/': `\/`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}
	var b strings.Builder
	for _, r := range text {
		b.WriteString("(?:" + regexp.QuoteMeta(string(r)))
		if s := short[r]; s != "" {
			b.WriteString("|" + regexp.QuoteMeta(s))
		}
		b.WriteString("|(?i:")
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\\u%04x`, unit)
		}
		b.WriteString("))")
	}
	return b.String()
}

// keyedBy are the namespace's views whose key has one part, that of an entity.
func (s *Store) keyedBy(namespace string, parts map[string]string) (views []string) {
	for _, t := range s.tables() {
		keys := t.schema.Keys()
		if t.schema.Namespace != namespace || t.schema.Kind != event.Features || len(keys) != 1 || len(parts) != 1 {
			continue
		}
		if _, its := parts[keys[0].Name]; its && !slices.Contains(views, t.schema.Subject) {
			views = append(views, t.schema.Subject)
		}
	}
	slices.Sort(views)
	return views
}

// forgetDerived removes or blanks the rows.
func (s *Store) forgetDerived(ctx context.Context, d derivedTable) error {
	if d.pick != "" {
		picked, err := s.picked(ctx, d)
		if err != nil {
			return err
		}
		return s.deleteWhere(ctx, d.table, picked)
	}
	if d.at == "" {
		return s.deleteWhere(ctx, d.table, d.wider)
	}
	if err := s.makeErased(ctx); err != nil {
		return err
	}
	run, note := time.Now().UnixNano(), d.table+"/forgotten" // no table of the audit's
	err := s.exec(ctx, fmt.Sprintf("INSERT INTO %s (`table`, topic, partition, epoch, offset, `index`, appended_at, run) SELECT '%s', %s, %s, %d FROM %s WHERE %s",
		s.ref(erasedTable), note, d.at, d.appended, run, s.ref(d.table), d.where))
	if err != nil {
		return err
	}
	picked := fmt.Sprintf("(%s) IN (SELECT topic, partition, epoch, offset, `index` FROM %s WHERE `table` = '%s' AND run = %d)", d.at, s.ref(erasedTable), note, run)
	if d.blank != "" {
		return s.rewrite(ctx, d.table, "UPDATE "+d.blank+" WHERE "+picked)
	}
	return s.deleteWhere(ctx, d.table, picked)
}

// picked is the condition that finds what d does, by ids that name nobody.
func (s *Store) picked(ctx context.Context, d derivedTable) (string, error) {
	rows, err := s.query(ctx, fmt.Sprintf("SELECT DISTINCT namespace, toString(%s) FROM %s WHERE %s", d.pick, s.ref(d.table), d.where), nil)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var namespace, id string
		if err := rows.Scan(&namespace, &id); err != nil {
			return "", err
		}
		ids = append(ids, fmt.Sprintf("(%s, %s)", chdb.QuoteString(namespace), chdb.QuoteString(id)))
	}
	return fmt.Sprintf("(namespace, %s) IN (%s)", d.pick, orNone(ids)), rows.Err()
}

func (s *Store) derivedAbout(namespace string, parts map[string]string, topics []string) []derivedTable {
	var named, mentions, ids, own []string
	names := func(column string) string { // it has one of the values as a text of its own
		var any []string
		for _, name := range slices.Sorted(maps.Keys(parts)) {
			any = append(any, holdsText(column, parts[name]))
		}
		return strings.Join(any, " OR ")
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		named = append(named, chdb.QuoteString(name))
		like := chdb.QuoteString(member(name, parts[name]))
		mentions = append(mentions, fmt.Sprintf("(match(value, %[1]s) OR match(key, %[1]s))", like))
	}
	said := strings.Join(mentions, " AND ")
	if views := s.keyedBy(namespace, parts); len(views) > 0 { // a key of one part may stand without its name
		for _, v := range parts {
			said = fmt.Sprintf("(%s OR match(value, %s) AND match(value, %s))", said, chdb.QuoteString(member("key", v)), chdb.QuoteString(member("view", views...)))
		}
	}
	for _, t := range s.tables() {
		if t.schema.Namespace == namespace {
			ids = append(ids, fmt.Sprint(t.schema.TableID))
		}
	}
	for _, t := range topics {
		own = append(own, chdb.QuoteString(t))
	}
	// of a column that is part of the key, what is known of single categories
	ofKey := fmt.Sprintf("`column` IN (%s) AND table_id IN (%s)", strings.Join(named, ", "), orNone(ids))
	grids := fmt.Sprintf("%s AND (%s)", ofKey, names("spec"))
	here := "namespace = " + chdb.QuoteString(namespace)
	verdicts := fmt.Sprintf("%s AND `column` IN (%s)", here, strings.Join(named, ", "))
	ofSegment := fmt.Sprintf("%s AND (`column` IN (%s) OR arrayExists(n -> position(segment, n || '=') > 0, [%[2]s]))", here, strings.Join(named, ", "))
	monitors := fmt.Sprintf("SELECT DISTINCT monitor FROM %s WHERE %s AND (%s OR %s)", s.ref("monitor_states"), here, names("state"), names("part"))
	return []derivedTable{
		{table: "dead_letters", where: fmt.Sprintf("topic IN (%s) AND %s", orNone(own), said),
			at: "topic, partition, epoch, offset, `index`", appended: "known_at", blank: "key = '', value = '', detail = 'erased'"},
		{table: "summaries", where: fmt.Sprintf("(table_id, `column`, grid) IN (SELECT table_id, `column`, grid FROM %s WHERE %s)", s.ref("grids"), grids), wider: ofKey},
		{table: "grids", where: grids, wider: ofKey},
		{table: "verdicts", where: fmt.Sprintf("%s AND (%s)", verdicts, names("sentence")), wider: verdicts},
		{table: "segment_verdicts", where: fmt.Sprintf("%s AND (%s OR %s)", ofSegment, names("sentence"), names("segment")), wider: ofSegment},
		{table: "incidents", where: fmt.Sprintf("%s AND (%s OR %s)", here, names("sentence"), names("`column`")), pick: "id"},
		{table: "monitor_states", where: fmt.Sprintf("%s AND monitor IN (%s)", here, monitors), pick: "monitor"},
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "NULL"
	}
	return strings.Join(list, ", ")
}
