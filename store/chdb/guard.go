package chdb

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// guard answers statements of people who may only read. It trusts nothing in
// the text: the engine parses it, the syntax tree is checked node by node, the
// tables it names are looked up and views followed, and it runs in a session
// of its own that the engine holds read-only.
type guard struct {
	db    *DB
	slots chan struct{}
	count atomic.Uint64
}

func newGuard(db *DB) *guard {
	return &guard{db: db, slots: make(chan struct{}, max(1, db.cfg.Handles/2))}
}

// guardSettings are the only settings that a reader may choose, all of them
// limits or output forms.
var guardSettings = []string{
	"max_execution_time", "max_result_rows", "max_result_bytes", "result_overflow_mode", "max_rows_to_read",
	"max_bytes_to_read", "read_overflow_mode", "max_threads", "max_block_size", "limit", "offset", "extremes",
	"session_timezone", "date_time_output_format", "output_format_json_quote_64bit_integers",
	"output_format_json_quote_denormals", "output_format_json_named_tuples_as_objects",
	"output_format_decimal_trailing_zeros", "join_use_nulls", "prefer_column_name_to_alias",
}

// tableFunctions neither read nor reach anything.
var tableFunctions = []string{"numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "values"}

func (g *guard) query(ctx context.Context, reader Reader, req *request, sink func([]byte) error) error {
	for name := range req.Settings {
		if !slices.Contains(guardSettings, name) {
			return refuse("the setting %s cannot be chosen here", name)
		}
	}
	if req.data != nil {
		return refuse("only SELECT is answered here")
	}
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return g.db.withFresh(ctx, fmt.Sprintf("reader-%d", g.count.Add(1)), func(h *handle) error {
		if err := g.admit(h, reader, req); err != nil {
			return err
		}
		return because(ctx, h.query(ctx, req.Statement, req.format, sink))
	})
}

// admit checks the statement and makes the session read-only for good.
func (g *guard) admit(h *handle, reader Reader, req *request) error {
	if a := h.classify(req.SQL); a.Class != ReadOnly || a.Statements != 1 {
		return refuse("only one SELECT is answered here")
	}
	if req.database != "" {
		if !g.database(req.database) {
			return refuse("database %s cannot be read here", req.database)
		}
		if err := h.exec("USE " + QuoteIdent(req.database)); err != nil {
			return err
		}
	}
	if err := g.tree(h, reader, Statement{SQL: req.SQL, Params: req.Params}, 0); err != nil {
		return err
	}
	if err := h.apply(req.Settings); err != nil {
		return err
	}
	return h.exec("SET max_memory_usage = " + strconv.FormatInt(max(g.db.cfg.MaxMemory/4, 0), 10) + ", allow_ddl = 0, readonly = 1")
}

func (g *guard) database(name string) bool {
	return name == g.db.cfg.Database || name == "system" || strings.EqualFold(name, "information_schema")
}

// tree checks a SELECT's syntax tree, and those of the views it reads.
func (g *guard) tree(h *handle, reader Reader, s Statement, depth int) error {
	if depth > 8 {
		return refuse("views nested more than 8 deep")
	}
	nodes, err := h.lines(Statement{SQL: "EXPLAIN AST " + s.SQL, Params: s.Params})
	if err != nil {
		return err
	}
	if len(nodes) == 0 || (!isNode(nodes[0], "SelectWithUnionQuery") && !isNode(nodes[0], "SelectIntersectExceptQuery")) {
		return refuse("only SELECT is answered here")
	}
	var names []string
	for i, n := range nodes {
		n = strings.TrimLeft(n, " ")
		inTable := i > 0 && isNode(strings.TrimLeft(nodes[i-1], " "), "TableExpression")
		if err := g.node(n, inTable); err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(n, "TableIdentifier "); ok {
			names = append(names, name)
		}
		if name, ok := strings.CutPrefix(n, "Identifier "); ok {
			names = append(names, name) // the right side of IN may be a table
		}
	}
	return g.tables(h, reader, names, depth)
}

func isNode(line, kind string) bool {
	rest, ok := strings.CutPrefix(line, kind)
	return ok && (rest == "" || rest[0] == ' ')
}

// node checks one node of the tree. A table expression's own node follows it
// directly, so nothing a client writes can come between them.
func (g *guard) node(n string, inTable bool) error {
	name, isFunction := strings.CutPrefix(n, "Function ")
	name, _, _ = strings.Cut(name, " ")
	name = strings.ToLower(name)
	switch {
	case isFunction && inTable && !slices.Contains(tableFunctions, name):
		return refuse("the table function %s cannot be used here", name)
	case isFunction && !inTable && outward(name):
		return refuse("the function %s cannot be used here", name)
	case inTable && !isFunction && !isNode(n, "TableIdentifier") && !isNode(n, "Subquery"):
		return refuse("a table expression of this form cannot be used here")
	case isNode(n, "QueryParameter") && strings.Contains(n, "Identifier"):
		return refuse("an identifier cannot be a parameter here")
	case isNode(n, "Set"):
		return refuse("a SETTINGS clause cannot be used here")
	}
	return nil
}

// outward reports scalar functions that read something beside their arguments
// and the tables of the statement.
func outward(name string) bool {
	for _, p := range []string{"dict", "joinget", "ai", "llm", "catboost", "evalml", "filesystem", "iceberg", "getclienthttpheader"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return slices.Contains([]string{"file", "input", "sleep", "sleepeachrow", "addresstoline", "addresstolinewithinlines", "addresstosymbol", "demangle", "generateserialid", "hasthreadfuzzer", "getmacro", "hascolumnintable", "naivebayesclassifier", "nlpdictionary", "lemmatize", "synonyms"}, name)
}

// tables looks up what the names stand for. Names that are no table (columns,
// aliases, common table expressions) are not found and do no harm.
func (g *guard) tables(h *handle, reader Reader, names []string, depth int) error {
	for _, name := range names {
		name, _, _ = strings.Cut(name, " (alias ")
		db, table, qualified := strings.Cut(name, ".")
		if !qualified {
			db, table = "", name
		}
		if qualified && !g.database(db) && g.exists(h, db) {
			return refuse("database %s cannot be read here", db)
		}
		if err := g.table(h, reader, db, table, depth); err != nil {
			return err
		}
	}
	return g.ownFunctions(h)
}

func (g *guard) exists(h *handle, db string) bool {
	rows, err := h.lines(Statement{SQL: "SELECT name FROM system.databases WHERE name = {db:String}", Params: map[string]string{"db": EscapeParam(db)}})
	return err != nil || len(rows) > 0
}

func (g *guard) table(h *handle, reader Reader, db, table string, depth int) error {
	rows, err := h.lines(Statement{
		SQL:    "SELECT concat(database, '\t', engine, '\t', as_select) FROM system.tables WHERE database = if({db:String} = '', currentDatabase(), {db:String}) AND name = {table:String}",
		Params: map[string]string{"db": EscapeParam(db), "table": EscapeParam(table)},
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	of, rest, _ := strings.Cut(strings.Join(rows, "\n"), "\t")
	engine, sel, _ := strings.Cut(rest, "\t")
	switch {
	case !g.readable(reader, of, table):
		return refuse("table %s.%s is not yours to read", of, table)
	case strings.HasSuffix(engine, "View") && sel != "":
		return g.tree(h, reader, Statement{SQL: sel}, depth+1)
	case strings.HasSuffix(engine, "MergeTree"), strings.HasPrefix(engine, "System"), engine == "Memory", engine == "Null", engine == "View", engine == "Join", engine == "Set":
		return nil
	}
	return refuse("table %s has the engine %s, which cannot be read here", table, engine)
}

// readable reports whether a table is the reader's.
func (g *guard) readable(r Reader, database, table string) bool {
	switch {
	case r.Table == nil:
		return true
	case database == "system":
		return slices.Contains([]string{"one", "numbers", "numbers_mt", "zeros", "zeros_mt"}, table)
	}
	return database == g.db.cfg.Database && r.Table(table)
}

// ownFunctions refuses to run while user-defined functions exist, for their
// bodies are not in the tree.
func (g *guard) ownFunctions(h *handle) error {
	rows, err := h.lines(Statement{SQL: "SELECT name FROM system.functions WHERE origin != 'System' LIMIT 1"})
	if err == nil && len(rows) > 0 {
		return refuse("a user-defined function (%s) exists", rows[0])
	}
	return err
}

func refuse(format string, args ...any) error {
	return &Error{Code: 497, Name: "ACCESS_DENIED", Message: "Code: 497. DB::Exception: Not enough privileges: " + fmt.Sprintf(format, args...) + " (this port answers SELECT on the engine's own tables). (ACCESS_DENIED)"}
}

// lines runs a statement and returns its first column, as text.
func (h *handle) lines(s Statement) ([]string, error) {
	var buf bytes.Buffer
	err := h.whole(s, "JSONCompactStringsEachRow", func(b []byte) error { buf.Write(b); return nil })
	if err != nil {
		return nil, err
	}
	var out []string
	for dec := json.NewDecoder(&buf); dec.More(); {
		var row []string
		if err := dec.Decode(&row); err != nil {
			return nil, fmt.Errorf("read the engine's answer: %w", err)
		}
		out = append(out, row[0])
	}
	return out, nil
}
