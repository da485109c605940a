package app

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/trainer"
)

// bundleFormat is the version of bundle.json.
const bundleFormat = 1

// Names within a bundle: a tar file, or a folder with the same names.
const (
	bundleFile     = "bundle.json"
	bundleArtifact = "artifact/"
)

// Bundle is one version of a model with all that another installation needs to
// serve it: its artefact, golden rows included, and the definitions of what it
// is fed with.
type Bundle struct {
	Format      int                  `json:"format"`
	Model       string               `json:"model"`
	Version     trainer.ModelVersion `json:"version"`
	Definitions []BundleDefinition   `json:"definitions"` // in the order in which they need each other

	files    map[string][]byte // of the artefact
	artifact *model.Artifact
}

// BundleDefinition is a definition without what belongs to one installation.
type BundleDefinition struct {
	Kind string          `json:"kind"`
	Name string          `json:"name"`
	Spec json.RawMessage `json:"spec"`
}

func (d BundleDefinition) String() string { return d.Kind + " " + d.Name }

// bundle gathers a version of a model, by its name or an alias.
func (a *App) bundle(ctx context.Context, namespace, name, ref string) (*Bundle, error) {
	state := a.registry.State()
	spec, _, err := a.trainer.models.Get(state, namespace, name)
	if err != nil {
		return nil, err
	}
	v, err := a.resolve(state, namespace, name, spec, ref)
	if err != nil {
		return nil, err
	}
	if v.Artifact == "" {
		return nil, fmt.Errorf("%w: version %s of %s has no artefact: an MLflow client logged it; `kedge model import` makes one of its file", trainer.ErrState, v.Version, name)
	}
	b := &Bundle{Format: bundleFormat, Model: name, Version: v}
	if b.files, err = a.trainer.artifacts.Files(ctx, v.Artifact, model.DefaultLimits()); err != nil {
		return nil, err
	}
	if b.artifact, err = model.FromFiles(b.files, model.DefaultLimits()); err != nil {
		return nil, err
	}
	b.Definitions = bundled(state, namespace, name, b.artifact)
	return b, nil
}

// resolve finds a version by its name or an alias. Where nobody has set the
// alias champion, it is the version that the deployment has as its champion.
func (a *App) resolve(state *registry.State, namespace, name string, spec *trainer.ModelSpec, ref string) (trainer.ModelVersion, error) {
	v, err := spec.Resolve(ref)
	d, deployed := state.Get(serving.DeploymentKind, namespace, name)
	if err == nil || ref != "champion" || !deployed {
		return v, err
	}
	live, parseErr := serving.ParseDeployment(d.Spec)
	if parseErr != nil {
		return v, err
	}
	for _, l := range live.Versions {
		for _, known := range spec.Versions {
			if l.Version == live.Champion && l.Artifact == known.Artifact {
				return known, nil
			}
		}
	}
	return v, err
}

// bundledKinds are the kinds that a bundle carries, what others need first.
func bundledKinds() []string {
	return []string{features.EntityKind, event.FeatureViewKind, features.WindowViewKind, features.OnDemandViewKind, features.FeatureServiceKind, event.ModelKind}
}

// bundled are the definitions that a model's inputs come from, those that its
// training set was made with, and the declared columns of its predictions.
// (Inferred ones of a model grow anew from what it predicts.)
func bundled(state *registry.State, namespace, name string, a *model.Artifact) []BundleDefinition {
	wanted := map[string]bool{event.ModelKind + "/" + name: true}
	for id := range a.Card.Data.Definitions {
		wanted[id] = true
	}
	for i := range a.Signature.Inputs {
		for _, kind := range []string{event.FeatureViewKind, features.WindowViewKind, features.OnDemandViewKind} {
			wanted[kind+"/"+a.Signature.Inputs[i].View] = true
		}
	}
	out := []BundleDefinition{}
	for _, kind := range bundledKinds() {
		for _, id := range slices.Sorted(maps.Keys(wanted)) {
			k, n, _ := strings.Cut(id, "/")
			d, ok := state.Get(k, namespace, n)
			if k != kind || !ok || kind == event.ModelKind && inferred(d.Spec) {
				continue
			}
			out = append(out, BundleDefinition{k, n, d.Spec})
		}
	}
	return out
}

func inferred(spec json.RawMessage) bool {
	var s struct {
		Origin event.Origin `json:"origin"`
	}
	return json.Unmarshal(spec, &s) == nil && s.Origin == event.Inferred
}

// names are the bundle's files in order, with their content.
func (b *Bundle) entries() (names []string, content map[string][]byte, err error) {
	head, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	content = map[string][]byte{bundleFile: append(head, '\n')}
	names = []string{bundleFile}
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		content[bundleArtifact+name] = b.files[name]
		names = append(names, bundleArtifact+name)
	}
	return names, content, nil
}

// encode writes a bundle as a tar file; the same bundle gives the same bytes.
func (b *Bundle) encode() ([]byte, error) {
	names, content, err := b.entries()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content[name])), Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content[name]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// errBundle says that what was sent is no bundle, or a damaged one.
var errBundle = errors.New("bad bundle")

// decodeBundle reads a tar file and proves it: every byte by the artefact's
// digest, the golden rows on the Go predictor.
func decodeBundle(r io.Reader, lim model.Limits) (*Bundle, error) {
	files := map[string][]byte{}
	left := lim.Total
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBundle, err)
		}
		if h.Typeflag != tar.TypeReg || len(files) > 16 || h.Size > min(lim.File, left) {
			return nil, fmt.Errorf("%w: %.100q is no file of a bundle, or too large", errBundle, h.Name)
		}
		if files[h.Name], err = io.ReadAll(io.LimitReader(t, h.Size)); err != nil {
			return nil, fmt.Errorf("%w: %w", errBundle, err)
		}
		left -= h.Size
	}
	return bundleOf(files, lim)
}

// readBundle reads a bundle's folder.
func readBundle(dir fs.FS, lim model.Limits) (*Bundle, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(dir, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() > lim.File || len(files) > 16 {
			return fmt.Errorf("%w: %s is no file of a bundle, or too large", errBundle, path)
		}
		files[path], err = fs.ReadFile(dir, path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return bundleOf(files, lim)
}

func bundleOf(files map[string][]byte, lim model.Limits) (*Bundle, error) {
	head, ok := files[bundleFile]
	if !ok {
		return nil, fmt.Errorf("%w: it has no %s", errBundle, bundleFile)
	}
	b := &Bundle{}
	if err := event.DecodeStrict(head, b); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errBundle, bundleFile, err)
	}
	if b.Format != bundleFormat {
		return nil, fmt.Errorf("%w: format %d, this version reads %d", errBundle, b.Format, bundleFormat)
	}
	if err := event.CheckName(b.Model); err != nil {
		return nil, fmt.Errorf("%w: model: %w", errBundle, err)
	}
	for _, d := range b.Definitions {
		if !slices.Contains(bundledKinds(), d.Kind) {
			return nil, fmt.Errorf("%w: a bundle carries no %s", errBundle, d.Kind)
		}
	}
	b.files = map[string][]byte{}
	for name, content := range files {
		if name, ok := strings.CutPrefix(name, bundleArtifact); ok {
			b.files[name] = content
		}
	}
	var err error
	if b.artifact, err = model.Check(b.files, b.Version.Artifact, lim); err != nil {
		return nil, fmt.Errorf("%w: %w", errBundle, err)
	}
	return b, nil
}
