package stream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// SchemaRegistry asks a schema registry with Confluent's HTTP interface
// (Confluent's, Karapace, Apicurio, Redpanda) for schemas by id.
type SchemaRegistry struct{ client *sr.Client }

// NewSchemaRegistry names the registry: http://host:8081, with user and
// password in the address where it wants them. A nil client is one with a limit
// of 10 s.
func NewSchemaRegistry(address string, client *http.Client) (*SchemaRegistry, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("schema registry: want an address such as http://host:8081")
	}
	if client == nil {
		client = &http.Client{Timeout: 10 * time.Second}
	}
	opts := []sr.ClientOpt{sr.UserAgent("kedge"), sr.HTTPClient(client)}
	if password, has := u.User.Password(); has {
		opts = append(opts, sr.BasicAuth(u.User.Username(), password))
		u.User = nil
	}
	c, err := sr.NewClient(append(opts, sr.URLs(u.String()))...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	return &SchemaRegistry{c}, nil
}

// Schema returns the text under an id, "" where the registry has none or one
// that refers to others, which is not read. An error is worth another try.
func (r *SchemaRegistry) Schema(ctx context.Context, id int) (string, error) {
	s, err := r.client.SchemaByID(ctx, id)
	var refused *sr.ResponseError
	switch {
	case errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound:
		return "", nil
	case err != nil:
		return "", fmt.Errorf("schema %d: %w", id, err)
	case len(s.References) > 0:
		return "", nil
	}
	return s.Schema, nil
}
