package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/kedge-ml/kedge/store/chdb"
)

// engine takes blocks on the short way, past the driver.
type engine interface {
	// insert runs sql (an INSERT without FORMAT) on the Native blocks that fill
	// writes. An error of fill stores nothing.
	insert(ctx context.Context, sql string, settings map[string]string, fill func(io.Writer) error) error
	// query runs a SELECT and hands its Native blocks to read.
	query(ctx context.Context, sql string, p params, settings map[string]string, read func(io.Reader) error) error
	close() error
}

// embeddedEngine is the engine inside the process.
type embeddedEngine struct{ db *chdb.DB }

func (e embeddedEngine) insert(ctx context.Context, sql string, settings map[string]string, fill func(io.Writer) error) error {
	var sb strings.Builder
	sb.WriteString(sql)
	for i, k := range slices.Sorted(maps.Keys(settings)) {
		sb.WriteString([]string{", ", " SETTINGS "}[min(1, max(0, 1-i))])
		sb.WriteString(k + " = " + chdb.QuoteString(settings[k]))
	}
	_, err := e.db.Insert(ctx, chdb.Statement{SQL: sb.String()}, "Native", fill)
	return err
}

func (embeddedEngine) close() error { return nil }

// serverEngine is a ClickHouse server's HTTP interface.
type serverEngine struct {
	url    url.URL
	header http.Header
	client *http.Client
}

func newServerEngine(o *clickhouse.Options) *serverEngine {
	e := &serverEngine{
		url:    url.URL{Scheme: "http", Host: o.Addr[0], Path: "/" + strings.TrimPrefix(o.HttpUrlPath, "/")},
		header: http.Header{},
		client: &http.Client{Transport: &http.Transport{
			TLSClientConfig:     cloneTLS(o.TLS),
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
			DialContext:         o2dial(o),
		}},
	}
	if o.TLS != nil {
		e.url.Scheme = "https"
	}
	if o.Auth.Username != "" {
		e.header.Set("X-ClickHouse-User", o.Auth.Username)
		e.header.Set("X-ClickHouse-Key", o.Auth.Password)
	}
	return e
}

func cloneTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	return c.Clone()
}

func (e *serverEngine) insert(ctx context.Context, sql string, settings map[string]string, fill func(io.Writer) error) error {
	q := url.Values{"query": {sql + " FORMAT Native"}}
	for k, v := range settings {
		q.Set(k, v)
	}
	u := e.url
	u.RawQuery = q.Encode()
	body, w := io.Pipe()
	filled := make(chan error, 1)
	go func() {
		err := fill(w)
		w.CloseWithError(err)
		filled <- err
	}()
	until, _ := ctx.Deadline()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), timely{body, until})
	if err != nil {
		return err
	}
	req.Header = e.header.Clone()
	res, err := e.client.Do(req)
	// The server may answer before it has read everything; fill must not wait
	// for a reader that is gone.
	body.CloseWithError(io.ErrClosedPipe)
	fillErr := <-filled
	var outer *url.Error
	if errors.As(err, &outer) { // its text holds the whole statement
		err = outer.Err
	}
	if err != nil {
		return fmt.Errorf("insert over HTTP: %w", err)
	}
	return insertAnswer(res, fillErr)
}

// timely is a request's body that ends with an error when it is read too late.
// The transport reads it after the server has the request's head, and so after
// the server's own clock began to run: a process that was stopped anywhere in
// an insert either sends nothing more, or sends it to a server that gave up.
type timely struct {
	io.ReadCloser
	until time.Time
}

// Read implements io.Reader.
func (t timely) Read(b []byte) (int, error) {
	// The wall clock, too: the other one stands still while a machine sleeps.
	if now := time.Now(); !t.until.IsZero() && (now.After(t.until) || now.Round(0).After(t.until.Round(0))) {
		return 0, context.DeadlineExceeded
	}
	return t.ReadCloser.Read(b)
}

// insertAnswer reads what the server said. A failure after its status line
// went out stands in the body.
func insertAnswer(res *http.Response, fillErr error) error {
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("insert over HTTP: read the answer: %w", err)
	}
	if res.StatusCode != http.StatusOK || bytes.Contains(text, []byte("__exception__\r\n")) {
		if err := chdb.ParseError(string(text)); err != nil {
			return err
		}
		return fmt.Errorf("insert over HTTP: status %s", res.Status)
	}
	return fillErr
}

func (e *serverEngine) close() error {
	e.client.CloseIdleConnections()
	return nil
}
