package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// audit is the newest comparison of the ledger with the tables.
type audit struct {
	mu    sync.Mutex
	at    time.Time
	parts []store.PartitionAudit
	disk  []query.Frame
	err   error
}

const (
	auditEvery = 3 * time.Second
	auditShare = 50 // an audit rests for this many times as long as it took
)

// runAudit compares again and again, for the metrics and the page. The larger
// the tables, the rarer: it costs at most two per cent of one core.
func (a *App) runAudit(ctx context.Context) error {
	stop, err := a.auditMetrics()
	if err != nil {
		return err
	}
	defer stop()
	for {
		start := time.Now()
		parts, _, err := a.store.AuditLedger(ctx, "", time.Time{})
		disk, diskErr := a.store.Disk(ctx, query.Request{})
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = diskErr
		}
		a.audit.set(parts, disk, err)
		if err != nil {
			a.sc.Log.Error("the ledger was not audited", telemetry.LogError, err)
		}
		if sleepUntil(ctx, max(auditEvery, auditShare*time.Since(start))) != nil {
			return nil
		}
	}
}

func (u *audit) set(parts []store.PartitionAudit, disk []query.Frame, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
	if err == nil {
		u.at, u.parts, u.disk = time.Now(), parts, disk
	}
}

// get returns the newest audit that worked, and why a newer one did not.
func (u *audit) get() (at time.Time, parts []store.PartitionAudit, disk []query.Frame, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.at, u.parts, u.disk, u.err
}

func sleepUntil(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// auditMetrics publishes the newest audit.
func (a *App) auditMetrics() (stop func(), err error) {
	m := a.tel.Scope("app").Meter
	gap, err1 := m.Int64ObservableGauge(telemetry.MetricLedgerGap, metric.WithUnit("{row}"), metric.WithDescription("Rows that the ledger counts and no table holds"))
	twice, err2 := m.Int64ObservableGauge(telemetry.MetricLedgerDuplicate, metric.WithUnit("{row}"), metric.WithDescription("Rows that a table holds and the ledger does not count"))
	used, err3 := m.Int64ObservableGauge(telemetry.MetricStoreBytes, metric.WithUnit("By"), metric.WithDescription("Bytes on disk, all tables"))
	free, err4 := m.Int64ObservableGauge(telemetry.MetricStoreFree, metric.WithUnit("By"), metric.WithDescription("Bytes free on the store's disk"))
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return nil, fmt.Errorf("audit metrics: %w", err)
		}
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		at, parts, disk, _ := a.audit.get()
		if at.IsZero() {
			return nil
		}
		var gaps, doubles int64
		for _, p := range parts {
			gaps, doubles = gaps+p.GapRows, doubles+p.DuplicateRows
		}
		o.ObserveInt64(gap, gaps)
		o.ObserveInt64(twice, doubles)
		if len(disk) > 1 && disk[1].Rows() > 0 {
			o.ObserveInt64(used, int64(values(disk[1], "used")[0]))
			o.ObserveInt64(free, int64(values(disk[1], "free")[0]))
		}
		return nil
	}, gap, twice, used, free)
	if err != nil {
		return nil, fmt.Errorf("audit metrics: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil
}
