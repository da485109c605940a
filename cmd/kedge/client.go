package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// cli holds what all commands share.
type cli struct {
	server    string
	key       string
	ca        string // file of the server's authority
	namespace string

	http *http.Client
}

// prepare reads the key and the authority that the flags name.
func (c *cli) prepare() error {
	if c.key == "" {
		c.key = os.Getenv("KEDGE_KEY") // not the flag's default, which help prints
	}
	return c.prepareOwn()
}

// prepareOwn is prepare without the environment's key, which is for one server.
func (c *cli) prepareOwn() error {
	if path, ok := strings.CutPrefix(c.key, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read the key: %w", err)
		}
		c.key = strings.TrimSpace(string(b))
	}
	c.http = &http.Client{Timeout: 10 * time.Minute}
	if c.ca == "" {
		return nil
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return fmt.Errorf("read the server's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("read the server's authority: %s holds no certificate", c.ca)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	c.http.Transport = transport
	return nil
}

func (c *cli) client() *query.Client {
	out := &query.Client{Server: c.server, Key: c.key, HTTP: c.http}
	if c.namespace != "" {
		out.Header = http.Header{"Kedge-Namespace": {c.namespace}}
	}
	return out
}

// do sends a request of a form that [query.Client] does not have.
func (c *cli) do(req *http.Request) (*http.Response, error) {
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if c.namespace != "" {
		req.Header.Set("Kedge-Namespace", c.namespace)
	}
	return c.http.Do(req)
}

// keyed adds the key to what goes to the server that the key is for.
type keyed struct{ c *cli }

func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	own, err := url.Parse(k.c.server)
	if err == nil && k.c.key != "" && r.URL.Scheme == own.Scheme && r.URL.Host == own.Host {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+k.c.key)
	}
	if k.c.http.Transport != nil {
		return k.c.http.Transport.RoundTrip(r)
	}
	return http.DefaultTransport.RoundTrip(r)
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
	res, err := c.do(req)
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
