package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Receiver is somebody who is told.
type Receiver struct {
	URL     string // of an Alertmanager its base, of a webhook the whole address
	Token   string // sent as a bearer token; empty: none
	Webhook bool
}

// postableAlert is an alert as version 2 of the Alertmanager's API takes it.
type postableAlert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// Event is what a webhook gets: one alert that began or ended. Key is the same
// whenever the same is told again.
type Event struct {
	Version     int               `json:"version"` // of this form: 1
	Key         string            `json:"key"`
	ID          string            `json:"id"`
	Status      string            `json:"status"` // firing or resolved
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Value       float64           `json:"value"`
	StartsAt    time.Time         `json:"starts_at"`
	EndsAt      time.Time         `json:"ends_at,omitzero"`
}

// errRefused says that the same will be refused again.
var errRefused = errors.New("refused")

// tell brings one receiver up to date. It reports what it told.
func (p *Pusher) tell(ctx context.Context, r Receiver, loud []*Alert, now time.Time) (told map[string]string, err error) {
	if r.Webhook {
		return p.tellWebhook(ctx, r, loud)
	}
	return nil, p.tellAlertmanager(ctx, r, loud, now)
}

// tellAlertmanager sends all that is loud, every time: an Alertmanager forgets
// what it does not hear of again. What alerts now is said to end after four
// looks, so that a Kedge that is gone does not alert for ever.
func (p *Pusher) tellAlertmanager(ctx context.Context, r Receiver, loud []*Alert, now time.Time) error {
	all := []postableAlert{}
	for _, a := range loud {
		ends := a.Ends
		if ends.IsZero() {
			ends = now.Add(4 * p.cfg.Every)
		} else if now.Sub(ends) > afterlife {
			continue
		}
		all = append(all, postableAlert{a.Labels, a.Annotations, a.Starts.UTC(), ends.UTC(), a.Annotations["dashboard_url"]})
	}
	if len(all) == 0 {
		return nil
	}
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return p.post(ctx, strings.TrimSuffix(r.URL, "/")+"/api/v2/alerts", r.Token, "", body)
}

// tellWebhook sends what the webhook does not know yet, in order, and stops at
// what it does not take now. What it refuses for good is not offered again.
func (p *Pusher) tellWebhook(ctx context.Context, r Receiver, loud []*Alert) (map[string]string, error) {
	told := map[string]string{}
	var refused error
	for _, a := range loud {
		key := a.state()
		if a.Told[r.URL] == key {
			continue
		}
		e := Event{Version: 1, Key: key, ID: a.ID, Status: "firing", Labels: a.Labels, Annotations: a.Annotations, Value: a.Value, StartsAt: a.Starts.UTC()}
		if !a.Ends.IsZero() {
			e.Status, e.EndsAt = "resolved", a.Ends.UTC()
		}
		body, err := json.Marshal(e)
		if err == nil {
			err = p.post(ctx, r.URL, r.Token, key, body)
		}
		if errors.Is(err, errRefused) {
			refused = err
		} else if err != nil {
			return told, err
		}
		told[a.ID] = key
	}
	return told, refused
}

// tries of one message within one look; the next look tries again.
const tries = 3

func (p *Pusher) post(ctx context.Context, url, token, key string, body []byte) error {
	var err error
	for n := range tries {
		if n > 0 {
			if err := wait(ctx, p.cfg.Backoff<<(n-1)); err != nil {
				return err
			}
		}
		if err = p.try(ctx, url, token, key, body); err == nil || errors.Is(err, errRefused) {
			return err
		}
	}
	return err
}

func (p *Pusher) try(ctx context.Context, url, token, key string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := p.cfg.Client.Do(req)
	if err != nil {
		return err // an *url.Error, which names the address without a password
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	switch {
	case res.StatusCode/100 == 2:
		return nil
	case res.StatusCode/100 == 4 && res.StatusCode != http.StatusRequestTimeout && res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusNotFound:
		return fmt.Errorf("%w by %s with %d: %s", errRefused, url, res.StatusCode, bytes.TrimSpace(said))
	}
	return fmt.Errorf("%s answered %d: %s", url, res.StatusCode, bytes.TrimSpace(said))
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
