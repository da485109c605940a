package app

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
)

// ServingConfig is what is served beside what deployments say.
type ServingConfig struct {
	// Bundle is a folder with one model, as `kedge model package` makes it: it
	// is registered at start, and it alone is served.
	Bundle string `yaml:"bundle"`
}

// packagedModel reads the bundle that this process is to serve; nil: none.
func (a *App) packagedModel() (*Bundle, error) {
	if a.cfg.Serving.Bundle == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(a.cfg.Serving.Bundle)
	if err != nil {
		return nil, fmt.Errorf("serving.bundle: %w", err)
	}
	defer root.Close()
	b, err := readBundle(root.FS(), model.DefaultLimits())
	if err != nil {
		return nil, fmt.Errorf("serving.bundle %s: %w", a.cfg.Serving.Bundle, err)
	}
	return b, nil
}

// runBundle registers and deploys the packaged model, then waits for the end.
func (a *App) runBundle(ctx context.Context) error {
	p := promotion{bundle: a.serving.bundle, caller: auth.Local(a.cfg.Namespace), from: "the package", alias: "champion", artifacts: a.serving.artifacts}
	out, err := a.promote(ctx, p)
	if err != nil {
		return fmt.Errorf("serve the packaged model: %w", err)
	}
	spec := serving.DeploymentSpec{Versions: []serving.DeployedVersion{{Version: p.bundle.Version.Version, Artifact: out.Artifact}}}
	spec.Champion = p.bundle.Version.Version
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	here, ok := a.registry.State().Get(serving.DeploymentKind, a.cfg.Namespace, p.bundle.Model)
	if !ok || !sameJSON(here.Spec, raw) {
		e := registry.Entry{Kind: serving.DeploymentKind, Namespace: a.cfg.Namespace, Name: p.bundle.Model, Op: registry.Put, Expect: here.Version, Spec: raw, Who: "package", Why: "the package serves this version alone"}
		if _, err := a.registry.Apply(ctx, e); err != nil {
			return fmt.Errorf("serve the packaged model: %w", err)
		}
	}
	<-ctx.Done()
	return nil
}
