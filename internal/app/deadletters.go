package app

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

type deadLetterFilter struct {
	Reason string    `json:"reason,omitempty" query:"reason"`
	Topic  string    `json:"topic,omitempty" query:"topic"`
	From   time.Time `json:"from,omitzero" query:"from"`
	To     time.Time `json:"to,omitzero" query:"to"`
	Limit  int       `json:"limit,omitempty" query:"limit" minimum:"0" maximum:"100000"`
}

func (f deadLetterFilter) request(namespace string) query.Request {
	r := query.Request{Kind: "dead_letters", Namespace: namespace, From: f.From, To: f.To, Limit: f.Limit, Filter: map[string]string{}}
	for name, value := range map[string]string{"reason": f.Reason, "topic": f.Topic} {
		if value != "" {
			r.Filter[name] = value
		}
	}
	return r
}

// deadLetterHeader marks a record that was produced again.
const deadLetterHeader = "kedge-replay-of"

// ReplayAnswer says what a replay of dead letters did.
type ReplayAnswer struct {
	Replayed int `json:"replayed"`
	Skipped  int `json:"skipped" doc:"Cut on storing, so that their bytes are not all there; or of an import or a foreign topic, and still no events"`
}

func (a *App) deadLetterRoutes(api *web.API, kinds map[string]KindFunc) {
	if a.store == nil {
		return
	}
	web.Handle(api, huma.Operation{
		OperationID: "dead-letters", Method: http.MethodGet, Path: "/v1/dead-letters", Summary: "Records that could not become rows", Tags: []string{"events"},
		Responses: textResponse("Frames: the newest, and counts by reason", web.TypeJSON, web.TypeArrow, web.TypeCSV),
	}, webError, func(ctx context.Context, in *struct {
		deadLetterFilter
		Accept string `header:"Accept"`
	}) (*raw, error) {
		media, err := web.Negotiate(in.Accept)
		if err != nil {
			return nil, err
		}
		c := auth.From(ctx)
		frames, err := a.answer(ctx, kinds, c, in.request(c.Namespace))
		if err != nil {
			return nil, err
		}
		body, err := web.EncodeFrames(media, frames)
		return newRaw(media, body), err
	})
	web.Handle(api, huma.Operation{
		OperationID: "replay-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/replay", Summary: "Produce dead letters again", Tags: []string{"events"},
		Description: "Each goes to its own topic again, with the header " + deadLetterHeader + " naming where it came from. A record of a source's topic is mapped again and its events go to Kedge's topics: nothing is written to a topic that is not Kedge's.",
	}, webError, func(ctx context.Context, in *struct{ Body deadLetterFilter }) (*struct{ Body ReplayAnswer }, error) {
		c := auth.From(ctx)
		answer, err := a.replayDeadLetters(ctx, c, in.Body.request(c.Namespace))
		if err != nil {
			return nil, err
		}
		return &struct{ Body ReplayAnswer }{answer}, nil
	})
}

// replay collects messages by topic and produces them in batches.
type replay struct {
	a      *App
	answer ReplayAnswer
	topic  string
	batch  []stream.Message
}

func (r *replay) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	if err := r.a.producer.Produce(ctx, r.topic, r.batch...); err != nil {
		return fmt.Errorf("replay dead letters of %s: %w", r.topic, err)
	}
	r.batch = nil
	return nil
}

func (r *replay) add(ctx context.Context, topic string, m stream.Message) error {
	if topic != r.topic || len(r.batch) >= 1000 {
		if err := r.flush(ctx); err != nil {
			return err
		}
		r.topic = topic
	}
	r.batch = append(r.batch, m)
	return nil
}

// replayDeadLetters re-produces what the request selects.
func (a *App) replayDeadLetters(ctx context.Context, c auth.Caller, q query.Request) (ReplayAnswer, error) {
	r := &replay{a: a}
	state := a.registry.State()
	for d, err := range a.store.DeadLetterRecords(ctx, q) {
		if err == nil {
			err = r.one(ctx, c, state, d)
		}
		if err != nil {
			return r.answer, err
		}
	}
	return r.answer, r.flush(ctx)
}

func (r *replay) one(ctx context.Context, c auth.Caller, state *registry.State, d event.DeadLetter) error {
	if int64(len(d.Value)) < d.Size {
		r.answer.Skipped++
		return nil
	}
	origin := originOf(d)
	if strings.HasPrefix(d.Topic, event.ImportTopicPrefix(c.Namespace)) { // there is no such topic
		a, err := event.AddressOf(d.Value)
		if err != nil {
			r.answer.Skipped++
			return nil
		}
		r.answer.Replayed++
		return r.add(ctx, TopicName(c.Namespace, a.Kind), stream.Message{Key: a.Key, Value: d.Value, Headers: origin})
	}
	if strings.HasPrefix(d.Topic, "kedge.") && !source.IsPairsTopic(d.Topic) {
		r.answer.Replayed++
		return r.add(ctx, d.Topic, stream.Message{Key: d.Key, Value: d.Value, Headers: origin})
	}
	events, found, err := r.a.sourceEvents(ctx, state, d)
	if err != nil || !found {
		r.answer.Skipped++
		return nil // it stays a dead letter, with its reason
	}
	for _, e := range events {
		e.msg.Headers = origin
		if err := r.add(ctx, TopicName(c.Namespace, e.kind), e.msg); err != nil {
			return err
		}
	}
	r.answer.Replayed++
	return nil
}

func originOf(d event.DeadLetter) []stream.Header {
	origin := fmt.Sprintf("%s/%d/%d", d.Topic, d.Partition, d.Offset)
	if d.Index > 0 {
		origin += fmt.Sprintf("/%d", d.Index)
	}
	return []stream.Header{{Name: deadLetterHeader, Value: []byte(origin)}}
}
