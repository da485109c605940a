package app

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
)

// KeyList is the answer of GET /v1/keys.
type KeyList struct {
	Keys []auth.KeyInfo `json:"keys"`
}

// NewKey asks for a key.
type NewKey struct {
	Subject string   `json:"subject" doc:"Who uses it, as the audit names them" maxLength:"200" example:"ride-service"`
	Grants  []string `json:"grants" doc:"NAMESPACE:ROLE,… each" minItems:"1" example:"[\"default:producer\"]"`
	Expires Duration `json:"expires,omitempty" doc:"How long it works, e.g. 90d; for ever when it is not given" example:"90d"`
}

// RotateKey asks for a key in another's place.
type RotateKey struct {
	Overlap Duration `json:"overlap,omitempty" doc:"How long the old key goes on working, e.g. 1d" example:"1h"`
}

// MadeKey has a secret that is shown once.
type MadeKey struct {
	ID      string    `json:"id"`
	Key     string    `json:"key" doc:"The secret. It is shown once and kept nowhere"`
	Subject string    `json:"subject"`
	Grants  []string  `json:"grants"`
	Expires time.Time `json:"expires,omitzero"`
}

func madeKey(secret string, k auth.Key) *struct{ Body MadeKey } {
	m := MadeKey{ID: k.ID, Key: secret, Subject: k.Subject, Expires: k.Expires}
	for _, g := range k.Grants {
		m.Grants = append(m.Grants, g.String())
	}
	return &struct{ Body MadeKey }{m}
}

// Whoami is who the server takes a caller for.
type Whoami struct {
	Subject   string   `json:"subject"`
	Method    string   `json:"method"`
	Namespace string   `json:"namespace"`
	Roles     []string `json:"roles"`
	Grants    []string `json:"grants"`
}

func (a *App) keyRoutes(api *web.API) {
	web.Handle(api, huma.Operation{OperationID: "whoami", Method: http.MethodGet, Path: "/v1/whoami", Summary: "Who the caller is, and what it may do", Tags: []string{"keys"}}, webError,
		func(ctx context.Context, _ *struct{}) (*struct{ Body Whoami }, error) {
			c := auth.From(ctx)
			w := Whoami{Subject: c.Subject, Method: c.Method, Namespace: c.Namespace, Roles: orNone(c.Roles), Grants: []string{}}
			for _, g := range c.Grants() {
				w.Grants = append(w.Grants, g.String())
			}
			return &struct{ Body Whoami }{w}, nil
		})
	web.Handle(api, huma.Operation{OperationID: "keys", Method: http.MethodGet, Path: "/v1/keys", Summary: "API keys, without their secrets", Tags: []string{"keys"}}, keyError,
		func(ctx context.Context, _ *struct{}) (*struct{ Body KeyList }, error) {
			return &struct{ Body KeyList }{KeyList{a.keys.List(auth.From(ctx))}}, nil
		})
	web.Handle(api, huma.Operation{OperationID: "create-key", Method: http.MethodPost, Path: "/v1/keys", Summary: "Make an API key", Tags: []string{"keys"}}, keyError,
		func(ctx context.Context, in *struct{ Body NewKey }) (*struct{ Body MadeKey }, error) {
			var grants []auth.Grant
			for _, s := range in.Body.Grants {
				g, err := auth.ParseGrant(s)
				if err != nil {
					return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
				}
				grants = append(grants, g)
			}
			var expires time.Time
			if in.Body.Expires != 0 {
				expires = time.Now().Add(time.Duration(in.Body.Expires)).UTC().Truncate(time.Second)
			}
			secret, key, err := a.keys.Create(ctx, auth.From(ctx), in.Body.Subject, grants, expires)
			if err != nil {
				return nil, err
			}
			auth.Changed(ctx, "key "+key.ID, nil, in.Body)
			return madeKey(secret, key), nil
		})
	web.Handle(api, huma.Operation{OperationID: "rotate-key", Method: http.MethodPost, Path: "/v1/keys/{id}/rotate", Summary: "Make a key that takes another's place", Tags: []string{"keys"}}, keyError,
		func(ctx context.Context, in *struct {
			ID   string `path:"id"`
			Body RotateKey
		}) (*struct{ Body MadeKey }, error) {
			secret, key, err := a.keys.Rotate(ctx, auth.From(ctx), in.ID, max(0, time.Duration(in.Body.Overlap)))
			if err != nil {
				return nil, err
			}
			auth.Changed(ctx, "key "+in.ID, nil, map[string]string{"rotated_to": key.ID})
			return madeKey(secret, key), nil
		})
	web.Handle(api, huma.Operation{OperationID: "revoke-key", Method: http.MethodDelete, Path: "/v1/keys/{id}", Summary: "End a key at once", Tags: []string{"keys"}}, keyError,
		func(ctx context.Context, in *struct {
			ID string `path:"id"`
		}) (*struct{}, error) {
			auth.Changed(ctx, "key "+in.ID, nil, nil)
			return nil, a.keys.Revoke(ctx, auth.From(ctx), in.ID)
		})
}

// keyError gives the errors about keys their place among HTTP's.
func keyError(err error) error {
	switch {
	case errors.Is(err, auth.ErrUnknownKey):
		return web.Errorf(http.StatusNotFound, web.CodeNotFound, "%w", err)
	case errors.Is(err, auth.ErrGrant):
		return web.Errorf(http.StatusForbidden, auth.CodeForbidden, "%w", err)
	case errors.Is(err, registry.ErrInvalid):
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
	}
	return webError(err)
}
