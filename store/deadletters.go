package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
)

const (
	defaultLimit = 100
	maxLimit     = 100_000
)

func limitOf(r query.Request) (string, error) {
	switch {
	case r.Limit < 0 || r.Limit > maxLimit:
		return "", invalid("limit %d: want 1 to %d", r.Limit, maxLimit)
	case r.Limit == 0:
		return strconv.Itoa(defaultLimit), nil
	}
	return strconv.Itoa(r.Limit), nil
}

// deadFilter is the condition of a request on dead letters. Those of foreign
// topics are seen by the namespaces whose sources map, or mapped, the topic, as
// the copy of the definitions has it. The filter may
// name topic, partition, offset, epoch and reason (equal), and detail
// (containing).
func (s *Store) deadFilter(r query.Request, p params) (string, error) {
	conditions := []string{"1"}
	if r.Namespace != "" {
		p["topics"] = "kedge." + r.Namespace + "."
		p["namespace"] = r.Namespace
		conditions = append(conditions, "(startsWith(topic, {topics:String}) OR topic IN (SELECT JSONExtractString(spec, 'topic') FROM "+s.ref("definitions")+" WHERE kind = 'Source' AND namespace = {namespace:String}))")
	}
	if !r.From.IsZero() {
		p["from"] = micro(r.From)
		conditions = append(conditions, "known_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC')")
	}
	if !r.To.IsZero() {
		p["to"] = micro(r.To)
		conditions = append(conditions, "known_at < fromUnixTimestamp64Micro({to:Int64}, 'UTC')")
	}
	for name, value := range r.Filter {
		switch name {
		case "topic", "reason":
			conditions = append(conditions, name+" = {f_"+name+":String}")
		case "partition", "offset", "epoch":
			if _, err := strconv.ParseInt(value, 10, 64); err != nil {
				return "", invalid("filter %s: %q is not a whole number", name, value)
			}
			conditions = append(conditions, name+" = {f_"+name+":Int64}")
		case "detail":
			conditions = append(conditions, "positionCaseInsensitive(detail, {f_detail:String}) > 0")
		default:
			return "", invalid("dead letters cannot be filtered by %q: want topic, partition, offset, epoch, reason or detail", name)
		}
		p["f_"+name] = value
	}
	return strings.Join(conditions, " AND "), nil
}

// DeadLetterBytes counts the bytes of keys and values of the dead letters that
// are stored of a namespace, and of other topics. It reads them all.
func (s *Store) DeadLetterBytes(ctx context.Context, namespace string, topics []string) (int64, error) {
	sql := "SELECT toInt64(sum(length(key) + length(value))) FROM " + s.ref("dead_letters") +
		" WHERE startsWith(topic, {ours:String}) OR has(arrayMap(h -> unhex(h), {topics:Array(String)}), toString(topic))"
	var n int64
	if err := s.queryRow(ctx, sql, params{"ours": "kedge." + namespace + ".", "topics": textList(topics)}).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the bytes of dead letters: %w", err)
	}
	return n, nil
}

// printable shows bytes as they are where they are text, else in base64.
func printable(column string) string {
	return fmt.Sprintf("if(isValidUTF8(%[1]s), %[1]s, concat('base64:', base64Encode(%[1]s)))", column)
}

// DeadLetters answers the kind "dead_letters": the newest first, then counts
// by reason.
func (s *Store) DeadLetters(ctx context.Context, r query.Request) ([]query.Frame, error) {
	p := params{}
	where, err := s.deadFilter(r, p)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	sql := fmt.Sprintf("SELECT known_at, toString(topic), toInt64(partition), offset, toInt64(`index`), toInt64(epoch), toString(reason), detail, %s, %s, size FROM %s WHERE %s ORDER BY known_at DESC, topic, partition, offset DESC, `index` DESC LIMIT %s",
		printable("key"), printable("value"), s.ref("dead_letters"), where, limit)
	rows, err := s.frame(ctx, "dead letters", query.Table, []query.Column{
		col("known_at", query.Time, ""), col("topic", query.Text, ""), col("partition", query.Int, ""), col("offset", query.Int, ""), col("index", query.Int, ""), col("epoch", query.Int, ""),
		col("reason", query.Text, ""), col("detail", query.Text, ""), col("key", query.Text, ""), col("value", query.Text, ""), col("size", query.Int, "bytes"),
	}, sql, p)
	if err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	counts, err := s.frame(ctx, "by reason", query.NumericLong, []query.Column{
		col("reason", query.Text, ""), col("topic", query.Text, ""), col("count", query.Int, ""), col("newest", query.Time, ""),
	}, fmt.Sprintf("SELECT toString(reason), toString(topic), toInt64(count()) AS n, max(known_at) FROM %s WHERE %s GROUP BY reason, topic ORDER BY n DESC, reason, topic", s.ref("dead_letters"), where), p)
	if err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	return []query.Frame{rows, counts}, nil
}

// DeadLetterRecords yields dead letters with their raw bytes, oldest first, for
// producing them again. It reads the same members of the request as
// [Store.DeadLetters]; without a limit it yields all.
func (s *Store) DeadLetterRecords(ctx context.Context, r query.Request) iter.Seq2[event.DeadLetter, error] {
	return func(yield func(event.DeadLetter, error) bool) {
		if err := s.eachDeadLetter(ctx, r, yield); err != nil {
			yield(event.DeadLetter{}, fmt.Errorf("dead letters: %w", err))
		}
	}
}

func (s *Store) eachDeadLetter(ctx context.Context, r query.Request, yield func(event.DeadLetter, error) bool) error {
	p := params{}
	where, err := s.deadFilter(r, p)
	if err != nil {
		return err
	}
	sql := "SELECT toString(topic), partition, offset, `index`, epoch, known_at, toString(reason), detail, key, value, size FROM " + s.ref("dead_letters") + " WHERE " + where + " ORDER BY known_at, topic, partition, offset, `index`"
	if r.Limit > 0 {
		sql += " LIMIT " + strconv.Itoa(r.Limit)
	}
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var d event.DeadLetter
		var at time.Time
		var reason, key, value string
		if err := rows.Scan(&d.Topic, &d.Partition, &d.Offset, &d.Index, &d.Epoch, &at, &reason, &d.Detail, &key, &value, &d.Size); err != nil {
			return err
		}
		d.KnownAt, d.Reason, d.Key, d.Value = at.UnixMicro(), event.Reason(reason), []byte(key), []byte(value)
		if !yield(d, nil) {
			return nil
		}
	}
	return rows.Err()
}
