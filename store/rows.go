package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Rows answers the kind "rows": rows of a view or model with event_time in a
// range (default: the last day), newest first. A model whose versions differ
// in their inputs has one frame per input signature that has rows.
func (s *Store) Rows(ctx context.Context, r query.Request) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	var out []query.Frame
	for _, t := range tables {
		p := params{"from": micro(from), "to": micro(to)}
		where, err := t.filterOf(r, p)
		if err != nil {
			return nil, err
		}
		cols, exprs, err := t.shown(r.Columns)
		if err != nil {
			return nil, err
		}
		sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s AND %s ORDER BY event_time DESC, created DESC, _epoch DESC, _partition DESC, _offset DESC, _index DESC LIMIT %s",
			strings.Join(exprs, ", "), s.ref(t.name), inRange("event_time"), where, limit)
		f, err := s.frame(ctx, t.schema.Subject, query.Table, cols, sql, p)
		if err != nil {
			return nil, requestError(fmt.Errorf("rows of %s: %w", t.schema.Subject, err))
		}
		if len(out) == 0 || f.Rows() > 0 {
			out = append(out, f)
		}
	}
	if len(out) > 1 && out[0].Rows() == 0 {
		out = out[1:]
	}
	if id, asked := r.Filter["trace_id"]; asked && id == "" && out[0].Rows() == 0 {
		out[0].Notices = append(out[0].Notices, query.Notice{Severity: "info", Text: "No trace is named: follow the link of a trace_id, or enter one."})
	}
	return out, nil
}

// requestError marks what the engine says of a value that does not fit its
// column's type.
func requestError(err error) error {
	switch Code(err) {
	case 457, 27, 6, 41, 53, 72: // bad parameter, cannot parse …
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// shown are the columns of an answer. Without names: everything but where the
// row came from.
func (t *table) shown(names []string) (cols []query.Column, exprs []string, err error) {
	if len(names) == 0 {
		for _, c := range t.columns {
			if f := t.schema.Fields[c.index]; !strings.HasPrefix(f.Name, "_") || f.Role != event.System {
				names = append(names, t.label(c))
			}
		}
	}
	for i, name := range names {
		c, f, ok := t.find(name)
		if !ok {
			return nil, nil, fmt.Errorf("%w: %s has no column %q", ErrUnknown, t.schema.Subject, name)
		}
		typ, expr := shownAs(f, chdb.QuoteIdent(c.name))
		cols = append(cols, query.Column{Name: name, Type: typ, Nullable: f.Nullable && typ != query.RawJSON})
		exprs = append(exprs, fmt.Sprintf("%s AS c%d", expr, i))
	}
	return cols, exprs, nil
}

// shownAs is how a stored type looks in a frame.
func shownAs(f event.Field, column string) (query.ColumnType, string) {
	if f.Type.List || isMap(f.Type.Elem) {
		return query.RawJSON, "toJSONString(" + column + ")"
	}
	switch f.Type.Elem {
	case event.Bool:
		return query.Bool, column
	case event.Int32, event.Int64:
		return query.Int, "toInt64(" + column + ")"
	case event.Float32, event.Float64:
		return query.Float, "toFloat64(" + column + ")"
	case event.Timestamp:
		return query.Time, column
	case event.Bytes:
		return query.Text, "base64Encode(" + column + ")"
	case event.JSON:
		return query.RawJSON, "if(empty(assumeNotNull(" + column + ")), 'null', assumeNotNull(" + column + "))"
	}
	return query.Text, "CAST(" + column + ", '" + map[bool]string{true: "Nullable(String)", false: "String"}[f.Nullable] + "')"
}
