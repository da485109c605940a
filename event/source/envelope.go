package source

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/kedge-ml/kedge/event"
)

// cloudEventText reads a CloudEvent 1.0 in structured mode as it is, and one in
// binary mode (attributes in ce_ headers, data in the value) as the structured
// one with the same members: a mapping names data.amount, id, time either way.
func cloudEventText(r Record) ([]byte, error) {
	attributes := map[string]string{}
	contentType := ""
	if r.Headers != nil {
		r.Headers(func(name, value []byte) bool {
			if attribute, ok := strings.CutPrefix(string(name), "ce_"); ok && utf8.Valid(value) {
				attributes[attribute] = string(value)
			} else if strings.EqualFold(string(name), "content-type") {
				contentType = string(value)
			}
			return true
		})
	}
	if attributes["specversion"] == "" {
		return structuredEvent(r.Value)
	}
	out := map[string]any{}
	for name, value := range attributes {
		out[name] = value
	}
	dst, err := appendMembers(nil, out)
	if err != nil {
		return nil, err
	}
	dst = append(dst[:len(dst)-1], `,"data":`...)
	switch {
	case len(bytes.TrimSpace(r.Value)) == 0:
		dst = append(dst, "null"...)
	case contentType == "" || strings.Contains(contentType, "json"):
		dst = append(dst, r.Value...)
	case strings.HasPrefix(contentType, "text/"):
		dst = event.AppendString(dst, string(r.Value))
	default:
		dst = appendBase64(dst, r.Value)
	}
	return append(dst, '}'), nil
}

// structuredEvent checks that the value says that it is a CloudEvent, and
// unpacks data_base64 when what it holds is JSON.
func structuredEvent(value []byte) ([]byte, error) {
	text := bytes.TrimSpace(value)
	if len(text) == 0 || text[0] == '[' {
		return text, nil // a batch: the mapping explodes "."
	}
	var e struct {
		SpecVersion string `json:"specversion"`
		DataBase64  string `json:"data_base64"`
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, event.RefusedError{Reason: event.ReasonMalformed, Detail: fmt.Sprintf("not a CloudEvent: %v", err)}
	}
	if e.SpecVersion == "" {
		return nil, event.RefusedError{Reason: event.ReasonMissing, Detail: "the record has no specversion, neither as a member nor as the header ce_specversion"}
	}
	if e.DataBase64 == "" {
		return text, nil
	}
	data, err := base64.StdEncoding.DecodeString(e.DataBase64)
	if err != nil || !json.Valid(data) {
		return text, nil
	}
	text = append(bytes.Clone(text[:len(text)-1]), `,"data":`...)
	return append(append(text, data...), '}'), nil
}

// debeziumText reads a change of Debezium in JSON, with or without the schema
// around it, as one row: op, ts_ms, source, before and after as Debezium has
// them; row, which is after or, for a delete, before; and deleted.
func debeziumText(r Record) ([]byte, error) {
	var change, inner struct {
		Payload json.RawMessage `json:"payload"`
		Op      string          `json:"op"`
		TsMs    json.RawMessage `json:"ts_ms"`
		Source  json.RawMessage `json:"source"`
		Before  json.RawMessage `json:"before"`
		After   json.RawMessage `json:"after"`
	}
	err := json.Unmarshal(r.Value, &change)
	if err == nil && len(change.Payload) > 0 {
		err = json.Unmarshal(change.Payload, &inner)
		change = inner
	}
	if err != nil {
		return nil, event.RefusedError{Reason: event.ReasonMalformed, Detail: fmt.Sprintf("not a change of Debezium: %v", err)}
	}
	row := change.After
	deleted := change.Op == "d"
	if deleted {
		row = change.Before
	}
	switch {
	case change.Op == "":
		return nil, event.RefusedError{Reason: event.ReasonMissing, Detail: "the record has no op: it is not a change of Debezium"}
	case isNull(row) && deleted:
		return nil, event.RefusedError{Reason: event.ReasonMissing, Detail: "a deleted row without before: let the table publish it (REPLICA IDENTITY FULL in PostgreSQL)"}
	case isNull(row):
		return nil, nil // truncate, message: nothing about a row
	}
	dst := event.AppendString([]byte(`{"op":`), change.Op)
	for _, m := range []struct {
		name  string
		value json.RawMessage
	}{{"ts_ms", change.TsMs}, {"source", change.Source}, {"before", change.Before}, {"after", change.After}, {"row", row}} {
		if !isNull(m.value) {
			dst = append(event.AppendString(append(dst, ','), m.name), ':')
			dst = append(dst, m.value...)
		}
	}
	return fmt.Appendf(dst, `,"deleted":%t}`, deleted), nil
}

func isNull(m json.RawMessage) bool { return len(m) == 0 || string(m) == "null" }
