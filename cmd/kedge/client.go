package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// cli holds what all commands share.
type cli struct {
	server string
	key    string
}

func (c *cli) client() *query.Client {
	return &query.Client{Server: c.server, Key: c.key, HTTP: &http.Client{Timeout: 10 * time.Minute}}
}

// send asks the server and explains when none is there.
func (c *cli) send(ctx context.Context, method, path, accept string, body any) ([]byte, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	out, err := c.client().Send(ctx, method, path, accept, b)
	return out, c.explain(err)
}

// explain adds what to do to errors that a newcomer meets.
func (c *cli) explain(err error) error {
	var op *net.OpError
	var uerr *url.Error
	if errors.As(err, &op) && op.Op == "dial" || errors.As(err, &uerr) && uerr.Timeout() {
		return fmt.Errorf("no kedge answers at %s: start one with `kedge run`, or name another with --server: %w", c.server, err)
	}
	return err
}

func (c *cli) get(ctx context.Context, path string, v any) error {
	b, err := c.send(ctx, http.MethodGet, path, "application/json", nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	return nil
}

// streamEvents posts JSON lines as they are read.
func (c *cli) streamEvents(ctx context.Context, lines io.Reader) (accepted, rejected int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.server, "/")+"/v1/events", lines)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := c.client().HTTP.Do(req)
	if err != nil {
		return 0, 0, c.explain(err)
	}
	defer res.Body.Close()
	var answer struct {
		Accepted int    `json:"accepted"`
		Rejected int    `json:"rejected"`
		Code     string `json:"code"`
		Message  string `json:"message"`
		Errors   []struct {
			Line    int    `json:"line"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return 0, 0, fmt.Errorf("read the answer of %s (%s): %w", c.server, res.Status, err)
	}
	if answer.Code != "" {
		return answer.Accepted, answer.Rejected, &query.Error{Status: res.StatusCode, Code: answer.Code, Message: answer.Message}
	}
	var faults []error
	for _, e := range answer.Errors {
		faults = append(faults, fmt.Errorf("line %d: %s", e.Line, e.Message))
	}
	return answer.Accepted, answer.Rejected, errors.Join(faults...)
}
