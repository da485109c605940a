package features

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// Errors that callers branch on.
var (
	// ErrUnknown is an unknown view, feature, service or push source.
	ErrUnknown = errors.New("unknown view, feature or service")
	// ErrRequest is a request that cannot be answered as it stands.
	ErrRequest = errors.New("bad request")
	// ErrBehind is a write that the broker has and that this process has not
	// read back within the bound.
	ErrBehind = errors.New("stored, but not readable here yet")
	// ErrStoreAway is a shared online store that cannot be reached, or that was
	// restarted and is being filled again.
	ErrStoreAway = errors.New("the shared online store does not answer")
)

// apiError is an error with the class that Feast's clients know it by.
type apiError struct {
	status  int
	class   string // of module feast.errors
	message string
	cause   error
}

func (e *apiError) Error() string { return e.message }

// Unwrap returns what made the request bad, if it was an error.
func (e *apiError) Unwrap() error { return e.cause }

// Is sorts the error under [ErrUnknown] or [ErrRequest].
func (e *apiError) Is(target error) bool {
	if e.status == http.StatusNotFound {
		return target == ErrUnknown
	}
	return e.status < 500 && target == ErrRequest
}

func notFound(class, format string, args ...any) error {
	return &apiError{status: http.StatusNotFound, class: class, message: fmt.Sprintf(format, args...)}
}

// badRequest is what Feast answers with a bare 500: its client would retry that
// three times and then hide the message. 400 with the base class raises at once.
func badRequest(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &apiError{http.StatusBadRequest, "FeastError", err.Error(), errors.Unwrap(err)}
}

// appendDetail writes an error's body: a JSON string that holds JSON, as
// Python's json.dumps writes both.
func (e *apiError) appendDetail(dst []byte) []byte {
	inner := append([]byte(nil), `{"module": "feast.errors", "class": `...)
	inner = appendASCII(inner, e.class)
	inner = append(inner, `, "message": `...)
	inner = append(appendASCII(inner, e.message), '}')
	return appendString(dst, inner)
}

// appendASCII writes a JSON string as Python's json.dumps does by default:
// everything beyond ASCII escaped.
func appendASCII(dst []byte, s string) []byte {
	for _, r := range string(appendString(nil, s)) {
		dst = appendASCIIRune(dst, r)
	}
	return dst
}

func appendASCIIRune(dst []byte, r rune) []byte {
	switch {
	case r < 0x80:
		return append(dst, byte(r))
	case r >= 0x10000:
		r -= 0x10000
		return fmt.Appendf(dst, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(dst, `\u%04x`, r)
}

// fault is one entry of a 422's detail, as pydantic states it.
type fault struct {
	typ   string
	loc   []any // strings and ints
	msg   string
	input []byte // JSON
	cause string // ctx.error; empty: none
}

// invalidError is a body that is not of the shape the path wants.
type invalidError struct{ faults []fault }

func (e *invalidError) Error() string {
	return fmt.Sprintf("request body: %s at %v", e.faults[0].msg, e.faults[0].loc)
}

func (e *invalidError) Is(target error) bool { return target == ErrRequest }

// appendDetail writes the body of a 422.
func (e *invalidError) appendDetail(dst []byte) []byte {
	dst = append(dst, `{"detail":[`...)
	for i, f := range e.faults {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(append(dst, `{"type":`...), f.typ), `,"loc":[`...)
		for j, l := range f.loc {
			if j > 0 {
				dst = append(dst, ',')
			}
			switch l := l.(type) {
			case int:
				dst = strconv.AppendInt(dst, int64(l), 10)
			case string:
				dst = appendString(dst, l)
			}
		}
		dst = append(appendString(append(dst, `],"msg":`...), f.msg), `,"input":`...)
		dst = append(dst, f.input...)
		if f.cause != "" {
			dst = append(appendString(append(dst, `,"ctx":{"error":`...), f.cause), '}')
		}
		dst = append(dst, '}')
	}
	return append(dst, `]}`...)
}
