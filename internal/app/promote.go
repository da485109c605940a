package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving/ort"
	"github.com/kedge-ml/kedge/trainer"
)

// Promotion says what came of a bundle that was sent to this installation.
type Promotion struct {
	Model    string   `json:"model"`
	Version  string   `json:"version" doc:"Its number here"`
	Artifact string   `json:"artifact"`
	Created  bool     `json:"created" doc:"False: the version was here already"`
	Defined  []string `json:"defined" doc:"Definitions that were made"`
	Kept     []string `json:"kept" doc:"Definitions that were here already and serve the model"`
}

// promoteRoutes move versions of models between installations.
func (a *App) promoteRoutes(api *web.API) {
	const path = "/v1/registry/models/{model}/bundle"
	api.Mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		b, err := a.bundle(r.Context(), auth.From(r.Context()).Namespace, r.PathValue("model"), r.URL.Query().Get("version"))
		var body []byte
		if err == nil {
			body, err = b.encode()
		}
		if err != nil {
			web.WriteError(w, web.From(promoteError(err)))
			return
		}
		w.Header().Set("Content-Type", "application/x-tar")
		_, _ = w.Write(body) // the client may have gone
	})
	api.Mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		out, err := a.takeBundle(w, r)
		if err != nil {
			a.tel.Scope("trainer").Log.WarnContext(r.Context(), "a model was not promoted", "model", r.PathValue("model"), "error", err)
			web.WriteError(w, web.From(promoteError(err)))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the client may have gone
	})
	documentBundles(api, path)
}

func documentBundles(api *web.API, path string) {
	tags := []string{"training"}
	word := &huma.Schema{Type: huma.TypeString}
	param := func(name, in, text string) *huma.Param {
		return &huma.Param{Name: name, In: in, Required: in == "path", Description: text, Schema: word}
	}
	media := map[string]*huma.MediaType{"application/x-tar": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	api.OpenAPI().AddOperation(&huma.Operation{OperationID: "bundle", Method: http.MethodGet, Path: path, Summary: "A version of a model with its artefact and definitions", Tags: tags,
		Parameters: []*huma.Param{param("model", "path", ""), param("version", "query", "A version or an alias")},
		Responses:  map[string]*huma.Response{"200": {Description: "A tar file", Content: media}, "default": api.ErrorResponse()}})
	api.OpenAPI().AddOperation(&huma.Operation{OperationID: "promote", Method: http.MethodPost, Path: path, Summary: "Register a version that another installation made", Tags: tags,
		Description: "Golden rows are replayed first, definitions compared, and the version is registered last; a bundle that was taken before changes nothing.",
		Parameters:  []*huma.Param{param("model", "path", ""), param("from", "query", "The installation that it comes from"), param("alias", "query", "The alias to move to it"), param("why", "query", "")},
		RequestBody: &huma.RequestBody{Required: true, Content: media},
		Responses: map[string]*huma.Response{"200": {Description: "It is registered", Content: map[string]*huma.MediaType{"application/json": {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Promotion](), true, "Promotion")}}},
			"default": api.ErrorResponse()}})
}

// promoteError gives what a bundle can be refused for its place among HTTP's.
func promoteError(err error) error {
	switch {
	case errors.Is(err, errBundle), errors.Is(err, model.ErrGolden), errors.Is(err, ort.ErrNoLibrary):
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
	case errors.Is(err, model.ErrCorrupt):
		return web.Errorf(http.StatusConflict, web.CodeConflict, "%w: the artefact of that version is damaged here: train it again, or restore it from a backup", err)
	}
	return trainerError(err)
}

// takeBundle reads and carries out a promotion.
func (a *App) takeBundle(w http.ResponseWriter, r *http.Request) (Promotion, error) {
	lim := model.DefaultLimits()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, lim.Total))
	if err != nil {
		return Promotion{}, fmt.Errorf("%w: read it: %w", errBundle, err)
	}
	b, err := decodeBundle(bytes.NewReader(body), lim)
	if err != nil {
		return Promotion{}, err
	}
	if name := r.PathValue("model"); name != b.Model {
		return Promotion{}, fmt.Errorf("%w: it is of the model %s, the request names %s", errBundle, b.Model, name)
	}
	q := r.URL.Query()
	p := promotion{bundle: b, caller: auth.From(r.Context()), from: q.Get("from"), alias: q.Get("alias"), why: q.Get("why"), artifacts: a.trainer.artifacts}
	if len(p.from) > 300 || len(p.alias) > event.MaxNameBytes || len(p.why) > 1000 {
		return Promotion{}, fmt.Errorf("%w: from, alias or why is too long", errBundle)
	}
	out, err := a.promote(r.Context(), p)
	if err == nil && out.Created {
		auth.Changed(r.Context(), trainer.ModelKind+" "+b.Model, nil, map[string]any{"version": out.Version, "artifact": out.Artifact, "from": p.from, "alias": p.alias, "defined": out.Defined})
	}
	return out, err
}

// promotion is a bundle on its way into this installation.
type promotion struct {
	bundle           *Bundle
	caller           auth.Caller
	from, alias, why string
	artifacts        *model.Library
}

// promote checks everything, then keeps the artefact, defines what is missing
// and, last, registers the version in one entry. Killed in between, it has
// registered nothing, and doing it again goes on where it stood.
func (a *App) promote(ctx context.Context, p promotion) (Promotion, error) {
	out := Promotion{Model: p.bundle.Model, Artifact: p.bundle.Version.Artifact, Defined: []string{}, Kept: []string{}}
	if err := replayHere(p.bundle.artifact); err != nil {
		return out, err
	}
	missing, err := a.missing(ctx, p, &out)
	if err != nil {
		return out, err
	}
	if err := p.artifacts.Install(ctx, out.Artifact, p.bundle.files, model.DefaultLimits()); err != nil {
		return out, err
	}
	for _, d := range missing {
		if _, err := a.apply(ctx, p.caller, Definition{Kind: d.Kind, Name: d.Name, Spec: d.Spec, Why: "promoted with model " + p.bundle.Model + " from " + p.from}); err != nil {
			return out, fmt.Errorf("define %s: %w", d, err)
		}
		out.Defined = append(out.Defined, d.String())
	}
	return out, a.register(ctx, p, &out)
}

// replayHere replays the golden rows of an ONNX model on the runtime that would
// serve it here; those of others were replayed when they were read.
func replayHere(art *model.Artifact) error {
	if art.Signature.Kind != model.ONNX {
		return nil
	}
	cfg, err := onnxConfig()
	if err != nil {
		return err
	}
	o := art.Signature.Outputs[0]
	proc, err := ort.Start(cfg, ort.Model{File: art.Model, Inputs: len(art.Signature.Inputs), Tensor: o.Tensor, Column: o.Column, Width: art.Signature.Width()})
	if err != nil {
		return err
	}
	defer proc.Close()
	_, err = art.Golden.Replay(proc.Predict)
	return err
}

// missing are the definitions that have to be made here. One that is here and
// means something else refuses the promotion.
func (a *App) missing(ctx context.Context, p promotion, out *Promotion) (missing []BundleDefinition, err error) {
	state := a.registry.State()
	var conflicts []error
	for _, d := range p.bundle.Definitions {
		here, ok := state.Get(d.Kind, p.caller.Namespace, d.Name)
		switch {
		case ok && agrees(d.Kind, here.Spec, d.Spec):
			out.Kept = append(out.Kept, d.String())
		case ok:
			conflicts = append(conflicts, web.Errorf(http.StatusConflict, web.CodeConflict,
				"%s is defined otherwise here (version %d, by %s): compare the two with `kedge get -o yaml`, and apply one of them on both sides", d, here.Version, here.Who))
		case !p.caller.May(auth.DefinitionWrite):
			conflicts = append(conflicts, auth.Forbidden(p.caller, auth.DefinitionWrite))
		default:
			if err := a.checkDefinition(ctx, p.caller, Definition{Kind: d.Kind, Name: d.Name, Spec: d.Spec}); err != nil {
				conflicts = append(conflicts, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%s: %w", d, err))
			}
			missing = append(missing, d)
		}
	}
	if len(conflicts) > 0 {
		return nil, conflicts[0]
	}
	return missing, nil
}

// agrees reports whether a definition that is here serves a model that was
// trained with another: it says the same or, where one of the two was inferred,
// has the same keys and all of its columns, with the same types.
func agrees(kind string, here, other json.RawMessage) bool {
	if sameJSON(here, other) {
		return true
	}
	if kind != event.FeatureViewKind || !inferred(here) && !inferred(other) {
		return false
	}
	h, err1 := event.ParseView(here)
	o, err2 := event.ParseView(other)
	if err1 != nil || err2 != nil || len(h.Keys) != len(o.Keys) {
		return false
	}
	for i, k := range o.Keys {
		if h.Keys[i].Name != k.Name || h.Keys[i].Type != k.Type {
			return false
		}
	}
	for _, c := range o.Columns {
		if !slices.ContainsFunc(h.Columns, func(f event.FieldSpec) bool { return f.Name == c.Name && f.Type == c.Type && f.Retired == c.Retired }) {
			return false
		}
	}
	return true
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err1 := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}

// register adds the version in one entry of the registry, unless the artefact
// is a version already, and moves the alias.
func (a *App) register(ctx context.Context, p promotion, out *Promotion) error {
	v := p.bundle.Version
	why := p.why
	if why == "" {
		why = fmt.Sprintf("promoted from %s, where it is version %s", p.from, v.Version)
	}
	_, err := trainer.NewModels(a.registry).Edit(ctx, p.caller.Namespace, p.bundle.Model, true, p.caller.Subject, why, func(spec *trainer.ModelSpec) error {
		out.Created = false
		i := slices.IndexFunc(spec.Versions, func(o trainer.ModelVersion) bool { return o.Artifact == v.Artifact })
		switch {
		case i >= 0 && (p.alias == "" || spec.Aliases[p.alias] == spec.Versions[i].Version):
			out.Version = spec.Versions[i].Version
			return errUnchanged
		case i >= 0:
			out.Version = spec.Versions[i].Version
		default:
			v.Model, v.From, v.Who, v.Stage, v.Source, v.Logged = p.bundle.Model, p.from, p.caller.Subject, trainer.StageCandidate, "", ""
			out.Version, out.Created = spec.Add(v, time.Now()).Version, true
		}
		if p.alias != "" {
			spec.Aliases[p.alias] = out.Version
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if errors.Is(err, registry.ErrInvalid) {
		return fmt.Errorf("%w: %w", errBundle, err)
	}
	return err
}

var errUnchanged = errors.New("nothing to change")
