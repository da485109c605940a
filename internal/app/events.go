package app

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/stream"
)

// eventsDoor takes events over HTTP and puts them where any producer would:
// into Kafka. An answer comes after the broker has them.
type eventsDoor struct {
	producer  *stream.Producer
	maxLine   int   // bytes of one event
	maxBody   int64 // bytes of one request, decompressed
	batchSize int   // events handed to the producer at a time
}

// EventsAnswer says what became of the lines of one request.
type EventsAnswer struct {
	Accepted int         `json:"accepted" doc:"Events that the broker has acknowledged"`
	Rejected int         `json:"rejected" doc:"Lines that are no event"`
	Errors   []LineError `json:"errors,omitempty" doc:"The first hundred rejected lines"`
}

// LineError says why a line was rejected. Lines count from 1.
type LineError struct {
	Line    int    `json:"line"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

const maxLineErrors = 100

// take reads a body of JSON lines. The error is for what ends the whole
// request; the answer then still says how many events were stored before.
func (d *eventsDoor) take(ctx context.Context, r *http.Request) (*EventsAnswer, error) {
	answer := &EventsAnswer{}
	body, err := d.open(r)
	if err != nil {
		return answer, err
	}
	batch := eventBatch{door: d, answer: answer, namespace: auth.From(ctx).Namespace, trace: telemetry.Traceparent(ctx)}
	lines, read := bufio.NewReaderSize(body, 64<<10), readLine
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == protobufMedia {
		read = readDelimited
	}
	for n := 1; ; n++ {
		line, tooLong, err := read(lines, d.maxLine)
		if tooLong {
			batch.reject(n, web.CodeTooLarge, fmt.Sprintf("line is longer than %d bytes", d.maxLine))
		} else if !blank(line) && (err == nil || errors.Is(err, io.EOF)) {
			batch.add(n, line)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return answer, errors.Join(batch.flush(ctx), bodyError(n, err))
		}
		if err != nil || len(batch.lines) >= d.batchSize || batch.bytes > 4<<20 {
			if err := batch.flush(ctx); err != nil {
				return answer, err
			}
		}
		if err != nil {
			return answer, nil
		}
	}
}

// protobufMedia is a body of kedge.v1.Event messages, each behind its length as a
// varint, as Protobuf's libraries write streams.
const protobufMedia = "application/x-protobuf"

// blank reports whether a line of JSON says nothing. The first byte of a
// Protobuf event is no space.
func blank(line []byte) bool { return len(bytes.TrimSpace(line)) == 0 }

// readDelimited returns the next message of a Protobuf stream. One beyond the
// cap is skipped and reported, never held.
func readDelimited(r *bufio.Reader, limit int) (message []byte, tooLong bool, err error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, false, err // io.EOF between messages
	}
	if size > uint64(limit) {
		_, err = io.CopyN(io.Discard, r, int64(min(size, math.MaxInt64)))
		return nil, true, cutOff(err)
	}
	message = make([]byte, size)
	_, err = io.ReadFull(r, message)
	return message, false, cutOff(err)
}

// cutOff is the end of a body inside a message.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// open checks what the body says of itself and undoes its compression.
func (d *eventsDoor) open(r *http.Request) (io.Reader, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		media, _, err := mime.ParseMediaType(ct)
		known := []string{"application/x-ndjson", "application/jsonl", "application/json", "application/jsonlines", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded", protobufMedia}
		if err != nil || !slices.Contains(known, media) {
			return nil, web.Errorf(http.StatusUnsupportedMediaType, web.CodeMediaType, "Content-Type %q: want application/x-ndjson or "+protobufMedia, ct)
		}
	}
	var body io.Reader = r.Body
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "gzip":
		zr, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, web.Errorf(http.StatusBadRequest, web.CodeBadRequest, "body is not gzip: %w", err)
		}
		body = zr
	default:
		return nil, web.Errorf(http.StatusUnsupportedMediaType, web.CodeMediaType, "Content-Encoding %q: want gzip or none", enc)
	}
	return &capped{r: body, left: d.maxBody, limit: d.maxBody}, nil
}

// capped fails where io.LimitReader would pretend that the body ends.
type capped struct {
	r           io.Reader
	left, limit int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, &http.MaxBytesError{Limit: c.limit}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

func bodyError(line int, err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return web.Errorf(http.StatusBadRequest, web.CodeBadRequest, "body ends in line %d: %w", line, err)
}

// readLine returns the next line without its end. A line beyond the cap is
// skipped and reported, never held.
func readLine(r *bufio.Reader, limit int) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if !tooLong {
			line = append(line, part...)
		}
		if len(line) > limit+1 {
			line, tooLong = nil, true
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), tooLong, err
		}
	}
}

// eventBatch collects lines on their way to the producer.
type eventBatch struct {
	door      *eventsDoor
	answer    *EventsAnswer
	namespace string
	trace     string
	lines     []outgoing
	bytes     int
}

type outgoing struct {
	kind event.Kind
	msg  stream.Message
}

func (b *eventBatch) reject(line int, code, message string) {
	b.answer.Rejected++
	if len(b.answer.Errors) < maxLineErrors {
		b.answer.Errors = append(b.answer.Errors, LineError{line, code, message})
	}
}

func (b *eventBatch) add(n int, line []byte) {
	a, err := event.AddressOf(line)
	switch {
	case errors.Is(err, event.ErrNotEnvelope):
		b.reject(n, "malformed", err.Error())
		return
	case err != nil:
		b.reject(n, "missing", err.Error())
		return
	case a.Namespace != "" && a.Namespace != b.namespace:
		b.reject(n, "namespace", fmt.Sprintf("namespace %q: this caller writes to %q", a.Namespace, b.namespace))
		return
	}
	msg := stream.Message{Key: a.Key, Value: line}
	if b.trace != "" {
		msg.Headers = []stream.Header{{Name: "traceparent", Value: []byte(b.trace)}}
	}
	b.lines = append(b.lines, outgoing{a.Kind, msg})
	b.bytes += len(line)
}

// flush produces what was collected, one call per stream.
func (b *eventBatch) flush(ctx context.Context) error {
	for _, kind := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		var msgs []stream.Message
		for _, l := range b.lines {
			if l.kind == kind {
				msgs = append(msgs, l.msg)
			}
		}
		if len(msgs) == 0 {
			continue
		}
		err := b.door.producer.Produce(ctx, TopicName(b.namespace, kind), msgs...)
		b.answer.Accepted += len(msgs) - failed(err, len(msgs))
		if err != nil {
			return web.Errorf(http.StatusServiceUnavailable, web.CodeUnavailable, "the broker did not take all events, %d of this request are stored: send the rest again: %w", b.answer.Accepted, err)
		}
	}
	b.lines, b.bytes = b.lines[:0], 0
	return nil
}

// failed counts the messages that a Produce did not store, as far as is known.
func failed(err error, n int) int {
	if err == nil {
		return 0
	}
	var pe *stream.ProduceError
	if !errors.As(err, &pe) {
		return n
	}
	bad := 0
	for _, e := range pe.Errs {
		if e != nil {
			bad++
		}
	}
	return bad
}

// ServeHTTP answers 200 when every line was taken, 207 when some were, 400
// when none was.
func (d *eventsDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := d.take(r.Context(), r)
	if err != nil {
		e := *web.From(err)
		e.TraceID = telemetry.TraceID(r.Context())
		e.Details = append(e.Details, web.Detail{Location: "accepted", Message: fmt.Sprint(answer.Accepted)})
		web.WriteError(w, &e)
		return
	}
	status := http.StatusOK
	switch {
	case answer.Rejected > 0 && answer.Accepted == 0:
		status = http.StatusBadRequest
	case answer.Rejected > 0:
		status = http.StatusMultiStatus
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client may have gone
}
