package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// SourcesConfig is what the sources of all foreign topics share.
type SourcesConfig struct {
	SchemaRegistry ServerURL `yaml:"schema_registry"` // http://user:password@host:8081; empty: none
	HashKey        Secret    `yaml:"hash_key"`        // keys hashed fields; at least 16 bytes
	PairMemory     Size      `yaml:"pair_memory"`     // of requests and responses that wait for the other one, of each source
}

func (c *Config) checkSources(f *faults) {
	if c.Sources.SchemaRegistry != "" {
		_, err := stream.NewSchemaRegistry(string(c.Sources.SchemaRegistry), nil)
		f.check(err == nil, "sources.schema_registry: want an address such as http://host:8081")
	}
	f.check(c.Sources.PairMemory >= 1<<20, "sources.pair_memory: %v is less than 1MB", int64(c.Sources.PairMemory))
	f.check(c.Sources.HashKey == "" || len(c.Sources.HashKey) >= 16, "sources.hash_key: want at least 16 bytes")
}

// schemas asks the schema registry; nil without one.
func (a *App) schemas() (func(context.Context, int) (string, error), error) {
	if a.cfg.Sources.SchemaRegistry == "" {
		return nil, nil
	}
	address := string(a.cfg.Sources.SchemaRegistry)
	r, err := stream.NewSchemaRegistry(address, a.cfg.outbound(10*time.Second, address).Client())
	if err != nil {
		return nil, err
	}
	return r.Schema, nil
}

// SourceSample asks what a source makes, or could make, of a topic's newest
// records.
type SourceSample struct {
	Topic   string          `json:"topic,omitempty" doc:"The topic to draft a source for"`
	Name    string          `json:"name,omitempty" doc:"Of the view or model that a draft makes; the topic's name when empty"`
	Spec    json.RawMessage `json:"spec,omitempty" doc:"The source to check"`
	Records int             `json:"records,omitempty" minimum:"0" maximum:"100000" doc:"How many to look at; 1000 when 0"`
}

// SourceDraft is a proposed source.
type SourceDraft struct {
	YAML    string `json:"yaml" doc:"A document for kedge apply"`
	Records int    `json:"records" doc:"That it was drafted from"`
}

// SourceReport says what a source makes of a sample.
type SourceReport struct {
	Records    int               `json:"records"`
	Rows       int64             `json:"rows"`
	Silent     int64             `json:"silent" doc:"Rows that give no event"`
	Events     map[string]int64  `json:"events" doc:"Events by kind"`
	Unpaired   int               `json:"unpaired,omitempty" doc:"Requests and responses without the other one in the sample"`
	Rejected   int64             `json:"rejected"`
	RejectRate float64           `json:"reject_rate"`
	Rejections []SourceRejection `json:"rejections"`
	Samples    []json.RawMessage `json:"samples" doc:"The first events as they would be stored"`
	Defines    []string          `json:"defines" doc:"Views and models that would be inferred"`
}

// SourceRejection is one row that would be a dead letter.
type SourceRejection struct {
	Row    int64  `json:"row"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

func (a *App) sourceRoutes(api *web.API) {
	web.Handle(api, huma.Operation{OperationID: "check-source", Method: http.MethodPost, Path: "/v1/sources/check", Summary: "What a source would make of a topic's newest records", Description: "Nothing is stored.", Tags: []string{"definitions"}, MaxBodyBytes: int64(a.cfg.HTTP.MaxBody)}, webError,
		func(ctx context.Context, in *struct{ Body SourceSample }) (*struct{ Body SourceReport }, error) {
			if err := a.refuseRaw(ctx, "sources check"); err != nil {
				return nil, err
			}
			report, err := a.checkSource(ctx, in.Body)
			return &struct{ Body SourceReport }{report}, err
		})
	web.Handle(api, huma.Operation{OperationID: "draft-source", Method: http.MethodPost, Path: "/v1/sources/draft", Summary: "Propose a source for a topic", Tags: []string{"definitions"}}, webError,
		func(ctx context.Context, in *struct{ Body SourceSample }) (*struct{ Body SourceDraft }, error) {
			if err := a.refuseRaw(ctx, "sources draft"); err != nil {
				return nil, err
			}
			draft, err := a.draftSource(ctx, in.Body)
			return &struct{ Body SourceDraft }{draft}, err
		})
}

func (a *App) checkSource(ctx context.Context, in SourceSample) (SourceReport, error) {
	d, err := source.ParseDefinition(in.Spec)
	if err != nil {
		return SourceReport{}, invalid(err)
	}
	records, err := a.sample(ctx, d.Topic, in.Records)
	if err != nil {
		return SourceReport{}, err
	}
	s := pairSample{records: len(records), pairs: records}
	if d.Pair != nil {
		if s, err = a.samplePairs(ctx, d, records, in.Records); err != nil {
			return SourceReport{}, err
		}
	}
	reader, err := source.NewReader(d)
	if err != nil {
		return SourceReport{}, invalid(err)
	}
	rows := s.rows(a.sampleRows(ctx, reader, s.pairs))
	mapper, err := source.NewMapper(&d.Mapping, source.Options{HashKey: a.hashKey()})
	if err != nil {
		return SourceReport{}, invalid(err)
	}
	r, err := source.Check(mapper, rows, 1<<30, time.Now().UnixMicro())
	if err != nil {
		return SourceReport{}, err
	}
	out := sourceReport(r, s.records)
	out.Unpaired = s.single
	return out, nil
}

func invalid(err error) error {
	return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
}

func sourceReport(r *source.Report, records int) SourceReport {
	out := SourceReport{Records: records, Rows: r.Rows, Silent: r.Silent, Events: map[string]int64{}, Rejected: r.Rejected, RejectRate: r.RejectRate(),
		Rejections: []SourceRejection{}, Samples: []json.RawMessage{}, Defines: []string{}}
	for kind, n := range r.Events {
		out.Events[kind.String()] = n
	}
	for _, x := range r.Rejections {
		out.Rejections = append(out.Rejections, SourceRejection{x.Row, string(x.Reason), x.Detail})
	}
	for _, s := range r.Samples {
		out.Samples = append(out.Samples, json.RawMessage(s.Text))
	}
	for _, p := range r.Proposals {
		if text := p.Kind + " " + p.Name; !slices.Contains(out.Defines, text) {
			out.Defines = append(out.Defines, text)
		}
	}
	return out
}

// hashKey is the configured key, or one that only a check can live with.
func (a *App) hashKey() []byte {
	if k := string(a.cfg.Sources.HashKey); k != "" {
		return []byte(k)
	}
	return nil
}

// mayReadTopic reports whether a topic's records are the caller's to see: of
// Kedge's topics those of its namespace, of foreign ones those that no other
// namespace maps. Whoever runs the installation sees all.
func (a *App) mayReadTopic(c auth.Caller, topic string) bool {
	if c.May(auth.MetricsRead) {
		return true
	}
	if strings.HasPrefix(topic, "kedge.") {
		return strings.HasPrefix(topic, "kedge."+c.Namespace+".")
	}
	for _, d := range a.registry.State().List(source.Kind, "") {
		if spec, err := source.ParseDefinition(d.Spec); err == nil && slices.Contains(spec.Topics(), topic) && d.Namespace != c.Namespace {
			return false
		}
	}
	return true
}

// sample reads the newest records of a topic, some of each partition.
func (a *App) sample(ctx context.Context, topic string, n int) ([]source.Record, error) {
	if c := auth.From(ctx); !a.mayReadTopic(c, topic) {
		a.refused(ctx, c, auth.SourceRead, "sample", "topic "+topic)
		return nil, web.Errorf(http.StatusForbidden, auth.CodeForbidden, "topic %q belongs to another namespace than %q", topic, c.Namespace)
	}
	if n == 0 {
		n = 1000
	}
	counts, err := a.client.Partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	if counts[topic] == 0 {
		return nil, web.Errorf(http.StatusNotFound, "unknown_topic", "topic %q: the broker has none of that name", topic)
	}
	var tps []stream.TopicPartition
	for p := range counts[topic] {
		tps = append(tps, stream.TopicPartition{Topic: topic, Partition: int32(p)})
	}
	ends, err := a.client.Offsets(ctx, tps...)
	if err != nil {
		return nil, err
	}
	share := max(int64(n/len(tps)), 1)
	var out []source.Record
	for _, tp := range tps {
		o := ends[tp]
		from := max(o.First, o.Last-share)
		if from >= o.Last {
			continue
		}
		for b, err := range a.client.FetchRange(ctx, tp, from, o.Last-1) {
			if errors.Is(err, stream.ErrRetention) || errors.Is(err, stream.ErrOffsetBackwards) {
				break // the topic moved meanwhile: what was read is sample enough
			}
			if err != nil {
				return nil, fmt.Errorf("sample topic %s: %w", topic, err)
			}
			out = appendRecords(out, b)
			b.Release()
		}
	}
	return out, nil
}

// appendRecords copies a batch's records: its memory is released.
func appendRecords(out []source.Record, b *stream.Batch) []source.Record {
	for i := range b.Records {
		r := &b.Records[i]
		var headers [][2][]byte
		for name, value := range r.Headers {
			headers = append(headers, [2][]byte{bytes.Clone(name), bytes.Clone(value)})
		}
		out = append(out, source.Record{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Time: r.Time, Headers: func(yield func(name, value []byte) bool) {
			for _, h := range headers {
				if !yield(h[0], h[1]) {
					return
				}
			}
		}})
	}
	return out
}

// sampleRows reads records as rows, numbered over all of them.
func (a *App) sampleRows(ctx context.Context, reader *source.RecordReader, records []source.Record) iter.Seq2[source.Row, error] {
	return func(yield func(source.Row, error) bool) {
		n, more := int64(0), true
		for i := 0; i < len(records) && more; i++ {
			err := a.readRecord(ctx, reader, records[i], func(row source.Row) error {
				row.Index = n
				n++
				if more = yield(row, nil); !more {
					return errStopped
				}
				return nil
			})
			var bad source.RowError
			switch {
			case err == nil || !more:
			case errors.As(err, &bad):
				more = yield(source.Row{Index: n}, source.RowError{Row: n, Err: bad.Err})
				n++
			default:
				yield(source.Row{}, err)
				return
			}
		}
	}
}

var errStopped = errors.New("stopped")

// readRecord reads one record, with the schema it names.
func (a *App) readRecord(ctx context.Context, reader *source.RecordReader, r source.Record, visit func(source.Row) error) error {
	return a.withSchema(ctx, reader.AddSchema, func() error { return reader.Rows(r, visit) })
}

// withSchema reads, and again with the schema that the first try asked for.
func (a *App) withSchema(ctx context.Context, add func(int, string) error, read func() error) error {
	err := read()
	var need *source.NeedSchemaError
	if !errors.As(err, &need) {
		return err
	}
	ask, err := a.schemas()
	if err != nil {
		return err
	}
	text := ""
	if ask == nil {
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "the records name schema %d: set sources.schema_registry", need.ID)
	}
	if text, err = ask(ctx, need.ID); err != nil {
		return fmt.Errorf("ask the schema registry: %w", err)
	}
	if err := add(need.ID, text); err != nil {
		return source.RowError{Err: err}
	}
	return read()
}

// draftRows is how many rows a draft looks at.
const draftRows = 1000

func (a *App) draftSource(ctx context.Context, in SourceSample) (SourceDraft, error) {
	records, err := a.sample(ctx, in.Topic, in.Records)
	if err != nil {
		return SourceDraft{}, err
	}
	if len(records) == 0 {
		return SourceDraft{}, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "topic %q is empty: a draft needs a sample of its records", in.Topic)
	}
	if in.Name == "" {
		in.Name = in.Topic
	}
	shape := source.Guess(records)
	reader, err := source.NewRecordReader(&shape)
	if err != nil {
		return SourceDraft{}, err
	}
	var rows []source.Row
	for row, err := range a.sampleRows(ctx, reader, records) {
		var bad source.RowError
		if errors.As(err, &bad) {
			continue
		}
		if err != nil {
			return SourceDraft{}, err
		}
		row.Fields = slices.Clone(row.Fields)
		if rows = append(rows, row); len(rows) == draftRows {
			break
		}
	}
	d, err := source.DraftDefinition(in.Topic, in.Name, shape, rows)
	if err != nil {
		return SourceDraft{}, invalid(err)
	}
	text, err := d.YAML()
	return SourceDraft{YAML: string(text), Records: len(records)}, err
}

// checkNewSource refuses a second source for a topic, and one that this
// installation cannot run.
func (a *App) checkNewSource(c auth.Caller, d Definition) error {
	spec, err := source.ParseDefinition(d.Spec)
	if err != nil {
		return err
	}
	for _, topic := range spec.Topics() {
		if by := a.mappedBy(c, d.Name, topic); by != "" {
			return fmt.Errorf("topic %q is mapped by %s: a topic has one source, which may list several events", topic, by)
		}
	}
	if spec.Pair != nil {
		if err := source.CheckPairsTopic(c.Namespace, d.Name); err != nil {
			return err
		}
	}
	if len(spec.Mapping.Hash) > 0 && a.cfg.Sources.HashKey == "" {
		return fmt.Errorf("hash: set sources.hash_key in the server's configuration")
	}
	if spec.Mapping.Format.Type == "avro" && spec.Mapping.Format.Schema == "" && a.cfg.Sources.SchemaRegistry == "" {
		return fmt.Errorf("format: avro without a schema needs sources.schema_registry in the server's configuration")
	}
	return nil
}

// mappedBy names the source beside the one of a name that maps a topic; "" if
// there is none.
func (a *App) mappedBy(c auth.Caller, name, topic string) string {
	for _, other := range a.registry.State().List(source.Kind, "") {
		o, err := source.ParseDefinition(other.Spec)
		if err != nil || !slices.Contains(o.Topics(), topic) || other.Name == name && other.Namespace == c.Namespace {
			continue
		}
		if other.Namespace == c.Namespace {
			return "the source " + other.Name
		}
		return "a source of another namespace"
	}
	return ""
}

// sourceEvents maps a dead letter of a source's topic again, as its source says
// now; false when its topic has none.
func (a *App) sourceEvents(ctx context.Context, state *registry.State, d event.DeadLetter) ([]outgoing, bool, error) {
	for _, def := range state.List(source.Kind, "") {
		spec, err := source.ParseDefinition(def.Spec)
		if err != nil || spec.Maps(def.Namespace, def.Name) != d.Topic {
			continue
		}
		if address, err := event.AddressOf(d.Value); err == nil { // it had been mapped
			return []outgoing{{address.Kind, stream.Message{Key: address.Key, Value: d.Value}}}, true, nil
		}
		out, err := a.mapAgain(ctx, spec, d)
		return out, true, err
	}
	return nil, false, nil
}

func (a *App) mapAgain(ctx context.Context, spec *source.Definition, d event.DeadLetter) ([]outgoing, error) {
	reader, err := source.NewReader(spec)
	if err != nil {
		return nil, err
	}
	mapper, err := source.NewMapper(&spec.Mapping, source.Options{HashKey: a.hashKey()})
	if err != nil {
		return nil, err
	}
	var out []outgoing
	err = a.readRecord(ctx, reader, source.Record{Key: d.Key, Value: d.Value, Time: d.KnownAt}, func(row source.Row) error {
		events, err := mapper.Map(row)
		for _, e := range events {
			out = append(out, outgoing{e.Kind, stream.Message{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Text)}})
		}
		return err
	})
	return out, err
}
