package event

import "errors"

// Route says where an event belongs that arrives outside a topic: its kind and
// the key its Kafka record must carry, so that order and duplicates hold per
// key and a label meets its prediction. A feature row's key is the text of its
// entity key, in the canonical form of [Prediction.Key]; a prediction's is its
// id; a label's the prediction's id, or its key.
//
// Only what routing needs is checked; the decoder does the rest. The key is
// valid until the next call. A Router is for one goroutine.
type Router struct{ d *Decoder }

// NewRouter returns a router that takes events within the bounds of cfg.
func NewRouter(cfg DecoderConfig) *Router { return &Router{NewDecoder(cfg)} }

// Route reads one event. Its error is a sentence for the sender, with the
// reason a dead letter would have.
func (r *Router) Route(text []byte) (Kind, []byte, error) {
	d := r.d
	d.start(text)
	var kind Kind
	var key routeKey
	if !d.acceptable() || !d.routeMembers(&kind, &key) {
		return 0, nil, RefusedError{d.fault.reason, d.fault.detail}
	}
	if kind == 0 {
		return 0, nil, RefusedError{ReasonMissing, "the event has neither values, output nor label, so nobody knows which kind it is"}
	}
	if k := key.of(kind); len(k) > 0 {
		return kind, k, nil
	}
	return 0, nil, RefusedError{ReasonKey, "the event has no key: features need key, predictions id, labels prediction_id or key"}
}

// RefusedError says why an event cannot be taken.
type RefusedError struct {
	Reason Reason
	Detail string
}

func (e RefusedError) Error() string { return string(e.Reason) + ": " + e.Detail }

// IsRefused returns the refusal in err's chain.
func IsRefused(err error) (RefusedError, bool) {
	var e RefusedError
	ok := errors.As(err, &e)
	return e, ok
}

type routeKey struct{ entity, id, prediction []byte }

func (k routeKey) of(kind Kind) []byte {
	switch {
	case kind == Features:
		return k.entity
	case kind == Predictions:
		return k.id
	case len(k.prediction) > 0:
		return k.prediction
	}
	return k.entity
}

func (d *Decoder) routeMembers(kind *Kind, key *routeKey) bool {
	if d.peek() != '{' {
		return d.notObject("the event")
	}
	d.pos++
	for first := true; ; first = false {
		another, ok := d.more(first, '}')
		if !ok {
			return false
		}
		if !another {
			break
		}
		d.depth = 1
		name, ok := d.name()
		if !ok || !d.routeMember(memberNamed(name), kind, key) {
			return false
		}
	}
	return d.ended()
}

func (d *Decoder) routeMember(m member, kind *Kind, key *routeKey) (ok bool) {
	switch m {
	case mView:
		*kind = Features
	case mOutput, mInputs:
		*kind = Predictions
	case mLabel:
		*kind = Labels
	}
	if d.peek() == 'n' {
		return d.literal("null")
	}
	switch m {
	case mKey:
		c := &d.drafts[Labels].batch.Columns[LabelKey]
		c.reset()
		ok = d.jsonKey(d.drafts[Labels])
		key.entity = c.Data
		return ok
	case mID:
		key.id, ok = d.word("id")
		return ok
	case mPredictionID:
		key.prediction, ok = d.word("prediction_id")
		return ok
	}
	return d.skip()
}
