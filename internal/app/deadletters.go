package app

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
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
	Skipped  int `json:"skipped" doc:"Cut on storing, so that their bytes are not all there"`
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
		return &raw{media, body}, err
	})
	web.Handle(api, huma.Operation{
		OperationID: "replay-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/replay", Summary: "Produce dead letters again", Tags: []string{"events"},
		Description: "Each goes to its own topic again, with the header " + deadLetterHeader + " naming where it came from.",
	}, webError, func(ctx context.Context, in *struct{ Body deadLetterFilter }) (*struct{ Body ReplayAnswer }, error) {
		answer, err := a.replayDeadLetters(ctx, in.Body.request(auth.From(ctx).Namespace))
		if err != nil {
			return nil, err
		}
		return &struct{ Body ReplayAnswer }{answer}, nil
	})
}

// replayDeadLetters re-produces what the request selects, in batches.
func (a *App) replayDeadLetters(ctx context.Context, r query.Request) (ReplayAnswer, error) {
	var out ReplayAnswer
	topic, batch := "", []stream.Message(nil)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := a.producer.Produce(ctx, topic, batch...); err != nil {
			return fmt.Errorf("replay dead letters of %s: %w", topic, err)
		}
		out.Replayed += len(batch)
		batch = nil
		return nil
	}
	for d, err := range a.store.DeadLetterRecords(ctx, r) {
		if err != nil {
			return out, err
		}
		if int64(len(d.Value)) < d.Size {
			out.Skipped++
			continue
		}
		if d.Topic != topic || len(batch) >= 1000 {
			if err := flush(); err != nil {
				return out, err
			}
			topic = d.Topic
		}
		batch = append(batch, replayOf(d))
	}
	return out, flush()
}

func replayOf(d event.DeadLetter) stream.Message {
	origin := fmt.Sprintf("%s/%d/%d", d.Topic, d.Partition, d.Offset)
	if d.Index > 0 {
		origin += fmt.Sprintf("/%d", d.Index)
	}
	return stream.Message{Key: d.Key, Value: d.Value, Headers: []stream.Header{{Name: deadLetterHeader, Value: []byte(origin)}}}
}
