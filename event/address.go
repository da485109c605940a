package event

import "errors"

// Address says which stream an envelope belongs to and which Kafka key keeps
// it in order, so that order and duplicates hold per key and a label meets its
// prediction: the entity key of a feature row in canonical form (JSON, members
// sorted, no blanks), a bare key as its text; the prediction id of a prediction
// and of its label; the entity key of a label by key and time.
type Address struct {
	Kind      Kind
	Namespace string // as the envelope states it; empty if it does not
	Key       []byte
}

// Errors of AddressOf.
var (
	// ErrNotEnvelope says that the bytes are no envelope's JSON.
	ErrNotEnvelope = errors.New("not an envelope")
	// ErrNoStream says that the members are those of no stream, or of several.
	ErrNoStream = errors.New("neither a feature row (view), a prediction (model and output) nor a label (model and label)")
	// ErrNoKey says that the member which makes the Kafka key is absent.
	ErrNoKey = errors.New("no key")
)

// RefusedError says why a text cannot be taken, in a dead letter's words. It
// is one of the errors of AddressOf by its reason.
type RefusedError struct {
	Reason Reason
	Detail string
}

func (e RefusedError) Error() string { return string(e.Reason) + ": " + e.Detail }

// Is makes refusals that concern the text ErrNotEnvelope and those that
// concern the key ErrNoKey.
func (e RefusedError) Is(target error) bool {
	switch e.Reason {
	case ReasonMissing, ReasonKey, ReasonLimit:
		return target == ErrNoKey
	}
	return target == ErrNotEnvelope
}

// IsRefused returns the refusal in err's chain.
func IsRefused(err error) (RefusedError, bool) {
	var e RefusedError
	ok := errors.As(err, &e)
	return e, ok
}

// AddressOf reads an envelope's address. It checks no more than it needs: the
// decoder has the last word on the rest.
func AddressOf(envelope []byte) (Address, error) {
	return NewAddressReader(DefaultDecoderConfig()).Read(envelope)
}

// AddressReader reads one address after the other. It is for one goroutine.
type AddressReader struct {
	keyReader
	maxBytes int
	key      []byte
	head     head
	proto    protoReader
}

// head is what an address is made of.
type head struct {
	view, model, output, label bool
	namespace                  []byte
	entity, id, prediction     []byte
}

// NewAddressReader returns a reader that takes events within the bounds of cfg.
func NewAddressReader(cfg DecoderConfig) *AddressReader {
	r := &AddressReader{maxBytes: cfg.MaxRecordBytes}
	r.maxDepth = cfg.MaxDepth
	return r
}

// Read reads one envelope's address, as [AddressOf] does. The key is valid
// until the next call.
func (r *AddressReader) Read(envelope []byte) (Address, error) {
	r.key, r.head = r.key[:0], head{}
	if !startText(&r.scanner, &r.proto, envelope, r.maxBytes) || !r.members() {
		return Address{}, RefusedError{r.fault.reason, r.fault.detail}
	}
	h := &r.head
	a := Address{Namespace: string(h.namespace)}
	switch {
	case h.view && !h.model:
		a.Kind, a.Key = Features, h.entity
	case h.model && !h.view && h.output && !h.label:
		a.Kind, a.Key = Predictions, h.id
	case h.model && !h.view && !h.output && h.label:
		if a.Kind, a.Key = Labels, h.prediction; len(a.Key) == 0 {
			a.Key = h.entity
		}
	default:
		return Address{}, ErrNoStream
	}
	if len(a.Key) == 0 {
		return Address{}, RefusedError{ReasonKey, missingKey(a.Kind)}
	}
	return a, nil
}

func missingKey(k Kind) string {
	switch k {
	case Features:
		return "a feature row needs a key"
	case Predictions:
		return "a prediction needs an id"
	}
	return "a label needs a prediction_id or a key"
}

func (r *AddressReader) members() bool {
	if r.peek() != '{' {
		return r.skip() && r.notObject("the event")
	}
	r.pos++
	for first := true; ; first = false {
		another, ok := r.more(first, '}')
		if !ok {
			return false
		}
		if !another {
			return r.ended()
		}
		r.depth = 1
		name, ok := r.name()
		if !ok || !r.member(memberNamed(name)) {
			return false
		}
	}
}

func (r *AddressReader) member(m member) (ok bool) {
	h := &r.head
	if r.peek() == 'n' {
		h.label = h.label || m == mLabel
		return r.literal("null")
	}
	switch m {
	case mView:
		h.view = true
	case mModel:
		h.model = true
	case mOutput:
		h.output = true
	case mLabel:
		h.label = true
	case mNamespace:
		h.namespace, ok = r.text("namespace")
		return ok
	case mID:
		h.id, ok = r.word("id")
		return ok
	case mPredictionID:
		h.prediction, ok = r.word("prediction_id")
		return ok
	case mKey:
		return r.entityKey()
	}
	return r.skip()
}

func (r *AddressReader) entityKey() (ok bool) {
	switch r.peek() {
	case '{':
		r.key, ok = r.canonicalKey(r.key[:0])
		r.head.entity = r.key
	case 't', 'f':
		start := r.pos
		_, ok = r.flag("key")
		r.head.entity = r.buf[start:r.pos]
	default:
		r.head.entity, ok = r.word("key")
	}
	return ok
}
