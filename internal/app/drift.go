package app

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/stream"
)

// LeasesTopic has one partition; who is assigned it does what must be done
// once.
const LeasesTopic = "kedge.leases"

// driftGroup is the group whose member runs the monitors.
const driftGroup = "kedge.leases.drift"

// AlertsTopic is where the alerts of a namespace go.
func AlertsTopic(namespace string) string { return "kedge." + namespace + ".alerts" }

// driftTopics are the lease and the alerts.
func (c *Config) driftTopics() []Topic {
	lease := stream.LogTopic(LeasesTopic)
	alerts := stream.TopicSpec{Name: AlertsTopic(c.Namespace), Partitions: 1, Config: map[string]string{
		"retention.ms": strconv.FormatInt((30 * 24 * time.Hour).Milliseconds(), 10)}}
	if !c.EmbeddedBroker() {
		lease.Replication, alerts.Replication = c.Kafka.ReplicationFactor, c.Kafka.ReplicationFactor
	}
	return []Topic{
		{Spec: lease, Purpose: "who runs the monitors; holds nothing", ACLs: acls(LeasesTopic, "kedge", "Describe", "Read", "Create")},
		{Spec: alerts, Purpose: "incidents that opened, worsened or ended, namespace " + c.Namespace, ACLs: acls(alerts.Name, "kedge", "Describe", "Read", "Write", "Create")},
	}
}

// openDrift prepares the monitors where this process has the role.
func (a *App) openDrift(context.Context) (err error) {
	if !a.hasRole("drift") {
		return nil
	}
	if _, err := a.library(); err != nil { // the champions' training references
		return err
	}
	cfg := drift.SchedulerConfig{Namespace: a.cfg.Namespace, Topic: AlertsTopic(a.cfg.Namespace), Champion: a.champion, Losses: a.lossLearner(), Scope: a.tel.Scope("drift")}
	a.drift, err = drift.NewScheduler(cfg, a.store, a.registry, a.producer)
	return err
}

// runDrift watches while this process holds the lease.
func (a *App) runDrift(ctx context.Context) error {
	return a.client.HoldLease(ctx, driftGroup, LeasesTopic, a.drift.Run)
}

// driftKinds wires the questions about drift.
func (a *App) driftKinds(k map[string]KindFunc) {
	if a.store != nil {
		k["incidents"] = a.store.Incidents
		k["performance"] = a.store.Performance
		k["segment_drift"] = a.store.SegmentDrift
	}
	if a.drift != nil {
		k["distribution"] = a.drift.Distribution
		k["contributions"] = a.drift.Contributions
		k["performance"] = a.drift.Performance
		k["monitors"] = a.drift.Monitors
		k["reference"] = a.drift.Preview
		k["constraints"] = a.drift.Constraints
		k["backtest"] = a.drift.Backtest
		k["root_cause"] = a.drift.RootCause
		k["segment_search"] = a.drift.SegmentSearch
		k["version_compare"] = a.drift.VersionCompare
	}
}

// ReferenceBody is a reference as `kedge reference set` sends it.
type ReferenceBody struct {
	Columns json.RawMessage `json:"columns" doc:"A baseline for every column, as kedge reference set makes them from a file"`
}

// maxReference bounds a reference that is sent.
const maxReference = 256 << 20

// driftRoutes takes references made from files.
func (a *App) driftRoutes(api *web.API) {
	if a.store == nil {
		return
	}
	web.Handle(api, huma.Operation{OperationID: "reference", Method: http.MethodPost, Path: "/v1/references/{name}", Summary: "Set a reference that monitors can name", Tags: []string{"drift"}, MaxBodyBytes: maxReference}, webError,
		func(ctx context.Context, in *struct {
			Name string `path:"name"`
			Body ReferenceBody
		}) (*struct{}, error) {
			r := &drift.FileReference{}
			if err := json.Unmarshal(in.Body.Columns, &r.Columns); err != nil {
				return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "reference %s: %w", in.Name, err)
			}
			return nil, drift.SaveReference(ctx, a.store, auth.From(ctx).Namespace, in.Name, r, uint64(time.Now().UnixMicro()))
		})
}
