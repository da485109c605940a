package features

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/stream"
)

// Writer sends rows through the log and waits until this process has read
// them back.
type Writer struct {
	producer *stream.Producer
	client   *stream.Client
	tail     *Tail
}

// NewWriter makes a writer. tail is the one that feeds the tables that the
// server reads.
func NewWriter(c *stream.Client, p *stream.Producer, t *Tail) *Writer {
	return &Writer{producer: p, client: c, tail: t}
}

// Write produces feature envelopes and returns when they are readable here, or
// with [ErrBehind] when they are stored and that takes longer than wait.
func (w *Writer) Write(ctx context.Context, namespace string, msgs []stream.Message, wait time.Duration) error {
	if len(msgs) == 0 {
		return nil
	}
	topic := FeatureTopic(namespace)
	if err := w.producer.Produce(ctx, topic, msgs...); err != nil {
		return fmt.Errorf("push %d rows: %w", len(msgs), err)
	}
	counts, err := w.client.Partitions(ctx, topic)
	if err != nil {
		return fmt.Errorf("push: find partitions: %w", err)
	}
	var touched []stream.TopicPartition
	for i := range msgs {
		tp := stream.TopicPartition{Topic: topic, Partition: stream.KeyPartition(msgs[i].Key, counts[topic])}
		if !slices.Contains(touched, tp) {
			touched = append(touched, tp)
		}
	}
	ends, err := w.client.Offsets(ctx, touched...)
	if err != nil {
		return fmt.Errorf("push: find the log's end: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for tp, end := range ends {
		if err := w.tail.Wait(ctx, tp, end.Last); err != nil {
			return fmt.Errorf("push: %w: %w", ErrBehind, err)
		}
	}
	return nil
}

// fits refuses rows that would become dead letters for their size, after they
// were acknowledged.
func (w *Writer) fits(v *View, rows []stream.Message) error {
	most := w.tail.cfg.Decoder.MaxRecordBytes
	for i := range rows {
		if n := len(rows[i].Value); n > most {
			return &apiError{status: http.StatusRequestEntityTooLarge, class: "FeastError",
				message: fmt.Sprintf("row %d of view %s is a record of %d bytes, at most %d are taken: push shorter values, or raise ingest.max_record", i, v.Name, n, most)}
		}
	}
	return nil
}

// FeatureTopic is the topic of a namespace's feature rows.
func FeatureTopic(namespace string) string { return "kedge." + namespace + ".features" }

func (s *Server) push(r *http.Request) (int, []byte, error) {
	n, err := s.writeBody(r, "push_source_name")
	if err != nil {
		return 0, nil, err
	}
	f, err := newFrame(n.member("df"))
	if err != nil {
		return 0, nil, err
	}
	if to := n.member("to"); to != nil && to.text != "online" && to.text != "offline" && to.text != "online_and_offline" {
		return 0, nil, badRequest("%s is not a supported push format. Please specify one of these ['online', 'offline', 'online_and_offline'].", to.text)
	}
	caller := auth.From(r.Context())
	name := n.member("push_source_name").text
	target := s.online.book(caller.Namespace).source(name)
	if target == nil {
		return 0, nil, &apiError{status: http.StatusUnprocessableEntity, class: "PushSourceNotFoundException", message: fmt.Sprintf("Unable to find push source '%s'.", name)}
	}
	return http.StatusOK, nil, s.store(r.Context(), caller, target, f)
}

func (s *Server) write(r *http.Request) (int, []byte, error) {
	n, err := s.writeBody(r, "feature_view_name")
	if err != nil {
		return 0, nil, err
	}
	f, err := newFrame(n.member("df"))
	if err != nil {
		return 0, nil, err
	}
	caller := auth.From(r.Context())
	name := n.member("feature_view_name").text
	target := s.online.book(caller.Namespace).viewTarget(name)
	if target == nil {
		return 0, nil, notFound("FeastObjectNotFoundException", "Can't recognize feast object with a name %s", name)
	}
	return http.StatusOK, []byte("null"), s.store(r.Context(), caller, target, f)
}

func (s *Server) writeBody(r *http.Request, nameField string) (*node, error) {
	body, err := readBody(r, nil, s.cfg.MaxPush)
	if err != nil {
		return nil, err
	}
	return parseBody(body, pushShape(nameField))
}

// store turns a frame's rows into envelopes, all of them before the first is
// sent: a bad row leaves nothing behind.
func (s *Server) store(ctx context.Context, caller auth.Caller, t *pushTarget, f *frame) error {
	if f.rows == 0 {
		return nil
	}
	if s.writer == nil {
		return badRequest("this process takes no writes: it has no connection to the log")
	}
	var msgs []stream.Message
	for _, v := range t.views {
		if from := v.Schema.From; from != nil {
			return badRequest("view %s reads the outside table %s and takes no rows: write to that table, or push to a view of another name", v.Name, from.Table)
		}
		m, err := f.envelopes(v, t, s.cfg.Now()+s.writer.tail.cfg.Decoder.FutureBound.Microseconds())
		if err != nil {
			return err
		}
		if err := s.writer.fits(v, m); err != nil {
			return err
		}
		msgs = append(msgs, m...)
	}
	return s.writer.Write(ctx, caller.Namespace, msgs, s.cfg.PushWait)
}

// materialize has nothing to move: the tables follow the log by themselves. It
// checks what it is asked, as Feast does.
func (s *Server) materialize(r *http.Request, incremental bool) (int, []byte, error) {
	body, err := readBody(r, nil, s.cfg.Limits.MaxBody)
	if err != nil {
		return 0, nil, err
	}
	n, err := parseBody(body, materializeShape(incremental))
	if err != nil {
		return 0, nil, err
	}
	b := s.online.book(auth.From(r.Context()).Namespace)
	views, err := b.materializedViews(n.member("feature_views"))
	if err != nil {
		return 0, nil, err
	}
	if err := checkRange(n, incremental); err != nil {
		return 0, nil, err
	}
	if async, _ := flagValue(&node{kind: kindString, text: r.URL.Query().Get("async")}); async {
		out := []byte(`{"status":"accepted","feature_views":[`)
		for i, v := range views {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendString(out, v)
		}
		return http.StatusAccepted, append(out, `]}`...), nil
	}
	return http.StatusOK, []byte("null"), nil
}

func (b *book) materializedViews(list *node) ([]string, error) {
	if list == nil || list.kind == kindNull {
		var all []string
		for name, v := range b.views {
			if v.online() {
				all = append(all, name)
			}
		}
		slices.Sort(all)
		return all, nil
	}
	var out []string
	for i := range list.items {
		name := list.items[i].text
		if b.served(name) == nil && b.onDemand[name] == nil {
			return nil, b.noView(name)
		}
		out = append(out, name)
	}
	return out, nil
}

func checkRange(n *node, incremental bool) error {
	end := n.member("end_ts")
	if incremental {
		_, err := looseTime(end.text)
		return err
	}
	if flag := n.member("disable_event_timestamp"); flag != nil {
		if on, _ := flagValue(flag); on {
			return nil
		}
	}
	start := n.member("start_ts")
	if start == nil || end == nil || start.text == "" || end.text == "" {
		return badRequest("start_ts and end_ts are required when disable_event_timestamp is False")
	}
	from, err := looseTime(start.text)
	if err != nil {
		return err
	}
	to, err := looseTime(end.text)
	if err == nil && from >= to {
		err = badRequest("start_ts (%s) must be before end_ts (%s)", start.text, end.text)
	}
	return err
}

// looseTime reads an ISO time; without a zone it is UTC, without a clock
// midnight.
func looseTime(text string) (int64, error) {
	s := strings.TrimSpace(text)
	if len(s) == len("2006-01-02") {
		s += "T00:00:00"
	}
	if len(s) == len("2006-01-02T15:04") && s[13] == ':' {
		s += ":00"
	}
	t, err := event.ParseTime([]byte(s))
	if err != nil {
		if t, err = event.ParseTime([]byte(s + "Z")); err != nil {
			return 0, badRequest("Unknown string format: %s", text)
		}
	}
	return t, nil
}

// appendEnvelopeTime writes a time as envelopes have it.
func appendEnvelopeTime(dst []byte, micros int64) []byte {
	return append(event.AppendTime(append(dst, '"'), micros), '"')
}
