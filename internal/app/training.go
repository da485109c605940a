package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/gpu"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/trainer"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// TrainerConfig bounds what training runs take together, and names the
// programs that jobs may run.
type TrainerConfig struct {
	CPUs     int                     `yaml:"cpus"`    // 0: all that this process may use
	GPUs     int                     `yaml:"gpus"`    // 0: all that there are
	Memory   Size                    `yaml:"memory"`  // of one run, rows in the server and in its training process; more is refused
	Library  string                  `yaml:"library"` // libxgboost.so; empty: looked for in .deps
	Quotas   map[string]TrainerQuota `yaml:"quotas"`  // per namespace
	Commands map[string][]string     `yaml:"commands"`
}

// TrainerQuota is what the runs of one namespace may take together.
type TrainerQuota struct {
	CPUs int `yaml:"cpus"`
	GPUs int `yaml:"gpus"`
}

func (c *Config) checkTrainer(f *faults) {
	f.check(c.Trainer.CPUs >= 0 && c.Trainer.GPUs >= 0, "trainer: want cpus and gpus that are not negative")
	f.atLeast("trainer.memory", c.Trainer.Memory, 64<<10)
	for name, q := range c.Trainer.Quotas {
		f.check(q.CPUs >= 0 && q.GPUs >= 0, "trainer.quotas.%s: want cpus and gpus that are not negative", name)
	}
	for name, argv := range c.Trainer.Commands {
		f.check(len(argv) > 0, "trainer.commands.%s: is empty: want a program and its arguments", name)
	}
}

// modelTrainer is what the role trainer runs beside MLflow's endpoint.
type modelTrainer struct {
	scheduler   *trainer.Scheduler
	models      *trainer.Models
	artifacts   *model.Library
	checkpoints *os.Root
}

// trainerGroup is the group whose member runs the queue.
const trainerGroup = "kedge.leases.trainer"

// openTrainer prepares the queue of training runs where this process has rows
// and features to train from.
func (a *App) openTrainer(context.Context) (err error) {
	if !a.hasRole("trainer") {
		return nil
	}
	if a.store == nil || a.features == nil {
		a.tel.Scope("trainer").Log.Warn("this process keeps MLflow's runs and takes no training jobs: those need stored rows (a ClickHouse server, or the role store) and the role features beside the role trainer")
		return nil
	}
	t := &modelTrainer{models: trainer.NewModels(a.registry)}
	if t.artifacts, err = a.library(); err != nil {
		return err
	}
	if t.checkpoints, err = a.folder("checkpoints"); err != nil {
		return err
	}
	cfg := trainer.SchedulerConfig{
		Owner:  fmt.Sprintf("%s/%d/%d", hostname(), os.Getpid(), a.started.UnixNano()),
		Quotas: map[string]trainer.Resources{}, Commands: a.cfg.Trainer.Commands, Artifacts: t.artifacts, Checkpoints: t.checkpoints,
		Live: a.incumbent, Deploy: a.deployVersion, Log: a.tel.Scope("trainer").Log,
	}
	for name, q := range a.cfg.Trainer.Quotas {
		cfg.Quotas[name] = trainer.Resources{CPUs: q.CPUs, GPUs: q.GPUs}
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	cfg.Library, cfg.NoLibrary = xgb.Find(a.cfg.Trainer.Library, root)
	cfg.Capacity, cfg.GPUs = a.cfg.Trainer.capacity()
	memory := int64(a.cfg.Trainer.Memory)
	history := features.NewHistory(features.HistoryConfig{Memory: min(1<<30, max(128<<20, memory/2))}, a.features.online, a.store)
	t.scheduler = trainer.NewScheduler(cfg, &trainer.Stored{History: history, Store: a.store, Registry: a.registry, Memory: memory})
	a.trainer = t
	return nil
}

// capacity is what runs may take together on this machine, and the UUIDs of the
// GPUs in it.
func (c *TrainerConfig) capacity() (trainer.Resources, []string) {
	out := trainer.Resources{CPUs: c.CPUs, GPUs: c.GPUs}
	if out.CPUs == 0 {
		out.CPUs = runtime.GOMAXPROCS(0)
	}
	var uuids []string
	if inv, err := gpu.Open(); err == nil {
		list, _ := inv.Devices()
		for _, d := range list {
			uuids = append(uuids, d.UUID)
		}
		inv.Close()
	}
	if out.GPUs == 0 || len(uuids) > 0 && out.GPUs > len(uuids) {
		out.GPUs = len(uuids)
	}
	return out, uuids[:min(out.GPUs, len(uuids))] // without the driver's word, programs may still count devices of another make
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// folder opens a folder of the data directory.
func (a *App) folder(name string) (*os.Root, error) {
	dir := a.dir.Sub(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	a.onClose(name, root.Close)
	return root, nil
}

// runTrainer runs the queue while this process holds its lease, and the runs
// that it has begun in any case.
func (a *App) runTrainer(ctx context.Context) error {
	return a.trainer.scheduler.Run(ctx, func(ctx context.Context, lead func(context.Context)) error {
		return a.client.HoldLease(ctx, trainerGroup, LeasesTopic, lead)
	})
}

// incumbent is the champion of a model's deployment or, where it has none, of
// its alias.
func (a *App) incumbent(ctx context.Context, namespace, name string) (*trainer.Incumbent, error) {
	version, digest := "", ""
	if d, ok := a.registry.State().Get(serving.DeploymentKind, namespace, name); ok {
		spec, err := serving.ParseDeployment(d.Spec)
		if err != nil {
			return nil, err
		}
		for _, v := range spec.Versions {
			if v.Version == spec.Champion {
				version, digest = v.Version, v.Artifact
			}
		}
	} else if m, _, err := a.trainer.models.Get(a.registry.State(), namespace, name); err == nil {
		if v, err := m.Resolve("champion"); err == nil {
			version, digest = v.Version, v.Artifact
		}
	}
	if digest == "" {
		return nil, nil
	}
	art, err := a.trainer.artifacts.Load(ctx, digest, model.DefaultLimits())
	if err != nil {
		return nil, err
	}
	return &trainer.Incumbent{Version: version, Artifact: art}, nil
}

// canaryShare is the traffic that a canary begins with.
const canaryShare = 0.1

// deployVersion changes a model's deployment for a version that passed its
// gate. Where there is no deployment yet, the version becomes its champion.
func (a *App) deployVersion(ctx context.Context, v trainer.ModelVersion, r trainer.Run, how string) error {
	for {
		d, ok := a.registry.State().Get(serving.DeploymentKind, r.Namespace, v.Model)
		spec := serving.DeploymentSpec{}
		var err error
		if ok {
			if spec, err = serving.ParseDeployment(d.Spec); err != nil {
				return err
			}
		}
		if err := addVersion(&spec, v, how, ok); err != nil {
			return err
		}
		raw, err := json.Marshal(spec)
		if err != nil {
			return err
		}
		if _, err = serving.ParseDeployment(raw); err != nil {
			return err
		}
		_, err = a.registry.Apply(ctx, registry.Entry{Kind: serving.DeploymentKind, Namespace: r.Namespace, Name: v.Model, Op: registry.Put, Expect: d.Version, Spec: raw,
			Who: "trainer", Why: fmt.Sprintf("run %s (%s) made version %s, which passed its gate", r.ID, r.Trigger, v.Version)})
		if !errors.Is(err, registry.ErrStale) || ctx.Err() != nil {
			return err
		}
	}
}

// addVersion puts a version into a deployment. One that carries traffic keeps
// its champion; older shadows and canaries of the trainer make room.
func addVersion(spec *serving.DeploymentSpec, v trainer.ModelVersion, how string, exists bool) error {
	name := v.Version
	if i := slices.IndexFunc(spec.Versions, func(d serving.DeployedVersion) bool { return d.Version == name }); i >= 0 && spec.Versions[i].Artifact != v.Artifact {
		name = "registry-" + v.Version // a version of that name was deployed by hand
	}
	if !slices.ContainsFunc(spec.Versions, func(d serving.DeployedVersion) bool { return d.Version == name }) {
		spec.Versions = append(spec.Versions, serving.DeployedVersion{Version: name, Artifact: v.Artifact})
	}
	switch {
	case !exists || how == "champion":
		spec.Champion = name
	case spec.Experiment != nil:
		return errors.New("an experiment is under way: end it first")
	case how == "shadow":
		spec.Shadows = []string{name}
	default:
		if spec.Canary != nil {
			return fmt.Errorf("canary %s is under way: promote it or roll it back first", spec.Canary.Version)
		}
		spec.Canary = &serving.Split{Version: name, Weight: canaryShare}
	}
	used := append([]string{spec.Champion}, spec.Shadows...)
	used = append(used, spec.Routing.Versions()...)
	spec.Versions = slices.DeleteFunc(spec.Versions, func(d serving.DeployedVersion) bool { return !slices.Contains(used, d.Version) && d.Version != name })
	return nil
}

// trainingKinds wires the questions about training runs and models.
func (a *App) trainingKinds(k map[string]KindFunc) {
	k["models"] = a.answerModels
	if a.store == nil {
		return
	}
	k["runs"] = a.store.Runs
	k["run_metrics"] = a.store.RunMetrics
	k["run_log"] = a.store.RunLog
	k["training_cost"] = a.answerTrainingCost
}
