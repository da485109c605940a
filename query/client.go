package query

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Client asks a running Kedge. The zero HTTP field means http.DefaultClient.
type Client struct {
	Server string // base URL, e.g. http://127.0.0.1:7070
	Key    string // sent as a bearer token; empty for none
	HTTP   *http.Client
	Header http.Header // further headers for every call, e.g. a forwarded identity
}

// Answer is what the server says to one Request.
type Answer struct {
	Frames []Frame `json:"frames"`
}

// Error is a refusal by the server.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("server answered %d: %s", e.Status, e.Message)
	}
	return e.Message + " (" + e.Code + ")"
}

// maxAnswer bounds what a Client reads into memory.
const maxAnswer = 256 << 20

// Do asks one question. A refusal is an *[Error].
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write query %s: %w", r.Kind, err)
	}
	res, err := c.Send(ctx, http.MethodPost, "/v1/query", "application/json", body)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", r.Kind, err)
	}
	var a Answer
	if err := json.Unmarshal(res, &a); err != nil {
		return nil, fmt.Errorf("query %s: read the answer of %s: %w", r.Kind, c.Server, err)
	}
	return &a, nil
}

// Send makes one call and returns the body of a 2xx answer; any other answer
// is an *[Error].
func (c *Client) Send(ctx context.Context, method, path, accept string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Server, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("server address %q: %w", c.Server, err)
	}
	for k, v := range c.Header {
		req.Header[k] = v
	}
	req.Header.Set("Accept", accept)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.Key)
	}
	hc := c.HTTP
	if hc == nil {
		hc = http.DefaultClient
	}
	res, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out, err := readAnswer(res)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		return nil, refusal(res.StatusCode, out)
	}
	return out, nil
}

// readAnswer reads a body into memory at once where the server says how long it
// is: growing up to it would copy it several times.
func readAnswer(res *http.Response) ([]byte, error) {
	if res.ContentLength > maxAnswer {
		return nil, fmt.Errorf("answer of %d bytes, more than %d: ask for less at a time", res.ContentLength, maxAnswer)
	}
	if res.ContentLength > 0 {
		out := make([]byte, res.ContentLength)
		_, err := io.ReadFull(res.Body, out)
		return out, err
	}
	out, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(out) > maxAnswer {
		err = fmt.Errorf("answer of more than %d bytes: ask for less at a time", maxAnswer)
	}
	return out, err
}

func refusal(status int, body []byte) error {
	e := &Error{Status: status}
	if json.Unmarshal(body, e) != nil || e.Message == "" {
		e.Message = strings.TrimSpace(string(body[:min(len(body), 512)]))
	}
	return e
}
