package app

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
)

// EntityDelete names the entity to delete.
type EntityDelete struct {
	Entity map[string]string `json:"entity" minProperties:"1" doc:"Parts of the key by join key, as text: {\"driver_id\":\"7\"}"`
}

// EntityDeleted says what a delete took away.
type EntityDeleted struct {
	Erased bool               `json:"erased" doc:"False: tombstones are in the log, and what they cover is erased within minutes"`
	Views  []features.Erasure `json:"views"`
}

// deleteRoutes takes entities out of every view.
func (a *App) deleteRoutes(api *web.API) {
	type answer struct {
		Status int
		Body   EntityDeleted
	}
	web.Handle(api, huma.Operation{
		OperationID: "deleteEntity", Method: http.MethodPost, Path: "/v1/entities/delete", Summary: "Delete an entity from every view of the namespace", Tags: []string{"features"},
		Description: "Writes a tombstone for each key with the given parts and erases what it covers from memory, tables and files. 202: that goes on in the background.",
	}, deleteError, func(ctx context.Context, in *struct{ Body EntityDelete }) (*answer, error) {
		views, err := a.features.deleter.Delete(ctx, auth.From(ctx).Namespace, in.Body.Entity, time.Duration(a.cfg.HTTP.QueryTimeout))
		if views == nil {
			views = []features.Erasure{}
		}
		if errors.Is(err, features.ErrBehind) && len(views) > 0 {
			a.tel.Scope("features").Log.InfoContext(ctx, "an entity's delete goes on in the background", "reason", err)
			return &answer{http.StatusAccepted, EntityDeleted{Views: views}}, nil
		}
		return &answer{http.StatusOK, EntityDeleted{Erased: true, Views: views}}, err
	})
}

func deleteError(err error) error {
	switch {
	case errors.Is(err, features.ErrUnknown):
		return web.Errorf(http.StatusNotFound, web.CodeNotFound, "%w", err)
	case errors.Is(err, features.ErrBehind):
		return web.Errorf(http.StatusServiceUnavailable, web.CodeUnavailable, "ingest is behind the log: try again: %w", err)
	}
	return webError(err)
}
