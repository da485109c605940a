package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Address says which stream an envelope belongs to and which Kafka key keeps
// it in order: the entity key of a feature row as canonical JSON (members
// sorted, no space, so that every producer that uses it meets the same
// partition), the prediction id of a prediction and of its label. A label by
// key and time has the entity key.
type Address struct {
	Kind      Kind
	Namespace string // as the envelope states it; empty if it does not
	Key       []byte
}

// Errors of AddressOf.
var (
	// ErrNotEnvelope says that the bytes are no JSON object.
	ErrNotEnvelope = errors.New("not a JSON object")
	// ErrNoStream says that the members are those of no stream, or of several.
	ErrNoStream = errors.New("neither a feature row (view), a prediction (model and output) nor a label (model and label)")
	// ErrNoKey says that the member which makes the Kafka key is absent.
	ErrNoKey = errors.New("no key")
)

// envelopeHead is what an address is made of.
type envelopeHead struct {
	Namespace    string          `json:"namespace"`
	View         json.RawMessage `json:"view"`
	Model        json.RawMessage `json:"model"`
	ID           json.RawMessage `json:"id"`
	Key          json.RawMessage `json:"key"`
	PredictionID json.RawMessage `json:"prediction_id"`
	Output       json.RawMessage `json:"output"`
	Label        json.RawMessage `json:"label"`
}

// AddressOf reads an envelope's address. It checks no more than it needs: the
// decoder has the last word on the rest.
func AddressOf(envelope []byte) (Address, error) {
	var h envelopeHead
	trimmed := bytes.TrimLeft(envelope, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return Address{}, ErrNotEnvelope
	}
	if err := json.Unmarshal(trimmed, &h); err != nil {
		return Address{}, fmt.Errorf("%w: %w", ErrNotEnvelope, err)
	}
	a := Address{Namespace: h.Namespace}
	var err error
	switch {
	case h.View != nil && h.Model == nil:
		a.Kind = Features
		a.Key, err = keyOf(h.Key, "key")
	case h.Model != nil && h.View == nil && h.Output != nil && h.Label == nil:
		a.Kind = Predictions
		a.Key, err = keyOf(h.ID, "id")
	case h.Model != nil && h.View == nil && h.Output == nil && h.Label != nil:
		a.Kind = Labels
		if h.PredictionID != nil {
			a.Key, err = keyOf(h.PredictionID, "prediction_id")
		} else {
			a.Key, err = keyOf(h.Key, "prediction_id or key")
		}
	default:
		err = ErrNoStream
	}
	return a, err
}

// keyOf makes a Kafka key of a JSON value: a text as it is, anything else as
// canonical JSON.
func keyOf(raw json.RawMessage, name string) ([]byte, error) {
	if raw == nil || string(raw) == "null" {
		return nil, fmt.Errorf("%w: %s is missing", ErrNoKey, name)
	}
	if raw[0] == '"' {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrNotEnvelope, name, err)
		}
		return []byte(s), nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // 2^63 must stay what it is
	var v any
	if err := dec.Decode(&v); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotEnvelope, name, err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // sorts members
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
