package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/bucket"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving/ort"
)

// DeploymentKind is the registry's kind of [DeploymentSpec]; the definition's
// name is the model's.
const DeploymentKind = "Deployment"

// DeploymentSpec says which versions of a model are loaded and how requests
// are routed among them. It is a definition like any other: applied from a
// file, with a history that says who changed it, when and why.
type DeploymentSpec struct {
	Versions   []DeployedVersion `json:"versions" yaml:"versions"`
	Routing    `yaml:",inline"`
	Record     Policy      `json:"record,omitempty" yaml:"record,omitempty"`    // default: block
	Batching   Batching    `json:"batching,omitzero" yaml:"batching,omitempty"` // of native runtimes
	Guardrails *Guardrails `json:"guardrails,omitempty" yaml:"guardrails,omitempty"`
}

// DeployedVersion is a version and the digest of its artefact.
type DeployedVersion struct {
	Version  string `json:"version" yaml:"version"`
	Artifact string `json:"artifact" yaml:"artifact"` // sha256, the artefact's folder
}

// ParseDeployment reads a spec strictly and joins its faults.
func ParseDeployment(spec json.RawMessage) (DeploymentSpec, error) {
	var d DeploymentSpec
	if err := event.DecodeStrict(spec, &d); err != nil {
		return d, fmt.Errorf("deployment: %w", err)
	}
	faults := []error{d.Routing.Validate(), d.Batching.Validate()}
	var err error
	if d.Record, err = ParsePolicy(string(d.Record)); err != nil {
		faults = append(faults, err)
	}
	if d.Guardrails != nil {
		faults = append(faults, d.Guardrails.Validate())
	}
	for i, v := range d.Versions {
		if v.Version == "" || v.Artifact == "" {
			faults = append(faults, fmt.Errorf("deployment: version %d needs a version and an artifact", i))
		}
		if slices.ContainsFunc(d.Versions[:i], func(o DeployedVersion) bool { return o.Version == v.Version }) {
			faults = append(faults, fmt.Errorf("deployment: version %s stands twice", v.Version))
		}
	}
	for _, v := range d.Routing.Versions() {
		if v != "" && !slices.ContainsFunc(d.Versions, func(o DeployedVersion) bool { return o.Version == v }) {
			faults = append(faults, fmt.Errorf("deployment: the routing names version %s, which is not among the versions", v))
		}
	}
	return d, errors.Join(faults...)
}

// Follower keeps a Server as the registry's deployments say.
type Follower struct {
	s         *Server
	reg       *registry.Registry
	artifacts *model.Library
	mu        sync.Mutex
	done      map[string]uint64            // model → definition version that is in force
	digests   map[string]map[string]string // model → version → artefact that is loaded
	faults    map[string]string
	status    chan map[string]string // holds the newest copy of faults
}

// NewFollower returns a follower that loads artefacts from a library.
func NewFollower(s *Server, reg *registry.Registry, artifacts *model.Library) *Follower {
	f := &Follower{s: s, reg: reg, artifacts: artifacts, done: map[string]uint64{}, digests: map[string]map[string]string{}, faults: map[string]string{}, status: make(chan map[string]string, 1)}
	f.status <- map[string]string{}
	s.repository.Store(f)
	return f
}

// Load carries a model's deployment out anew, as Triton's clients ask: its
// artefacts are read and checked again.
func (f *Follower) Load(ctx context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	def, ok := f.reg.State().Get(DeploymentKind, f.s.cfg.Namespace, name)
	if !ok || !f.s.serves(name) {
		return fmt.Errorf("load: %w: %q has no deployment", ErrUnknownModel, name)
	}
	delete(f.digests, name)
	if err := f.carryOut(ctx, def); err != nil {
		return fmt.Errorf("load %s: %w: %w", name, ErrRuntime, err)
	}
	f.done[name] = def.Version
	f.fault(name, "")
	return nil
}

// Unload stops serving a model until [Follower.Load] or a change of its
// deployment.
func (f *Follower) Unload(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.s.Unload(name, ""); err != nil {
		return err
	}
	delete(f.digests, name)
	f.fault(name, "unloaded")
	return nil
}

// fault notes why a model's deployment is not in force; "" means that it is.
func (f *Follower) fault(name, why string) {
	if why == "" {
		delete(f.faults, name)
	} else {
		f.faults[name] = why
	}
	<-f.status
	f.status <- copied(f.faults)
}

// Run follows the registry until ctx ends. A deployment that cannot be carried
// out leaves what it would have replaced in place; [Follower.Faults] says why.
func (f *Follower) Run(ctx context.Context) error {
	st := f.reg.State()
	for {
		away := f.settle(ctx, st)
		next, err := f.next(ctx, st, away)
		if err != nil {
			return nil // the context ended
		}
		st = next
	}
}

// awayPause is how long a deployment waits whose artefacts' storage is away.
const awayPause = 5 * time.Second

// next waits for a newer state or, while something is away, for a pause.
func (f *Follower) next(ctx context.Context, st *registry.State, away bool) (*registry.State, error) {
	if !away {
		return f.reg.Next(ctx, st.Offset())
	}
	pause, cancel := context.WithTimeout(ctx, awayPause)
	defer cancel()
	next, err := f.reg.Next(pause, st.Offset())
	if err != nil && ctx.Err() == nil {
		return st, nil
	}
	return next, err
}

// Faults says which deployments are not in force, and why.
func (f *Follower) Faults() map[string]string {
	now := <-f.status
	f.status <- now
	return now
}

// settle carries out what is new, and reports whether some of it has to be tried
// again since its artefacts' storage was away.
func (f *Follower) settle(ctx context.Context, st *registry.State) (away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wanted := map[string]bool{}
	for _, def := range st.List(DeploymentKind, f.s.cfg.Namespace) {
		if !f.s.serves(def.Name) {
			continue
		}
		wanted[def.Name] = true
		if f.done[def.Name] == def.Version {
			continue
		}
		err := f.carryOut(ctx, def)
		if err != nil {
			f.faults[def.Name] = err.Error()
			f.s.log.Error("deployment is not in force", "model", def.Name, "definition_version", def.Version, "error", err)
		} else {
			delete(f.faults, def.Name)
			f.s.log.Info("deployment is in force", "model", def.Name, "definition_version", def.Version, "who", def.Who, "why", def.Why)
		}
		f.done[def.Name] = def.Version
		if errors.Is(err, bucket.ErrAway) && !errors.Is(err, fs.ErrNotExist) {
			away, f.done[def.Name] = true, 0
		}
	}
	f.forget(wanted)
	<-f.status
	f.status <- copied(f.faults)
	return away
}

func copied(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// forget unloads models whose deployment is gone.
func (f *Follower) forget(wanted map[string]bool) {
	var gone []string
	for name := range f.done {
		if !wanted[name] {
			gone = append(gone, name)
		}
	}
	sort.Strings(gone)
	for _, name := range gone {
		if err := f.s.Unload(name, ""); err != nil && !errors.Is(err, ErrUnknownModel) {
			f.s.log.Error("unload a model without a deployment", "model", name, "error", err)
		}
		delete(f.done, name)
		delete(f.digests, name)
		delete(f.faults, name)
	}
}

// carryOut loads what is new, then routes, then unloads what is left over: at
// no moment does a routing lack a version.
func (f *Follower) carryOut(ctx context.Context, def registry.Definition) error {
	d, err := ParseDeployment(def.Spec)
	if err != nil {
		return err
	}
	var fresh []Model
	for _, v := range d.Versions {
		if f.digests[def.Name][v.Version] == v.Artifact {
			continue
		}
		m, err := f.load(ctx, def.Name, v, d.Batching)
		if err != nil {
			letGo(fresh)
			return err
		}
		fresh = append(fresh, m)
	}
	if f.digests[def.Name] == nil {
		f.digests[def.Name] = map[string]string{}
	}
	for i, m := range fresh {
		if err := f.s.Load(m); err != nil {
			letGo(fresh[i:])
			return err
		}
	}
	for _, v := range d.Versions {
		f.digests[def.Name][v.Version] = v.Artifact
	}
	if err := f.s.SetRouting(def.Name, d.Routing, d.Record); err != nil {
		return err
	}
	return f.prune(def.Name, d)
}

func letGo(models []Model) {
	for i := range models {
		models[i].release()
	}
}

func (f *Follower) load(ctx context.Context, name string, v DeployedVersion, b Batching) (Model, error) {
	a, err := f.artifacts.Load(ctx, v.Artifact, model.DefaultLimits())
	if err != nil {
		return Model{}, fmt.Errorf("load version %s: %w", v.Version, err)
	}
	if a.Signature.Kind != model.ONNX {
		return FromArtifact(name, v.Version, a)
	}
	if f.s.cfg.ONNX.Library == "" {
		return Model{}, fmt.Errorf("load version %s: %w: name the path of libonnxruntime.so in %s", v.Version, ort.ErrNoLibrary, ort.Environment)
	}
	return FromONNX(name, v.Version, a, f.s.cfg.ONNX, b)
}

func (f *Follower) prune(name string, d DeploymentSpec) error {
	for version := range f.digests[name] {
		if slices.ContainsFunc(d.Versions, func(v DeployedVersion) bool { return v.Version == version }) {
			continue
		}
		if err := f.s.Unload(name, version); err != nil {
			return err
		}
		delete(f.digests[name], version)
	}
	return nil
}
