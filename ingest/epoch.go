package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// EpochKind is the registry kind that opens epochs, one definition per
// partition, named topic/partition.
const EpochKind = "Epoch"

// LogStart as the start of an epoch means the first record that still exists.
const LogStart int64 = -1

// EpochSpec opens an epoch of a partition: its records are read again, or
// further on, from an offset, under tokens of their own. Rows of units that an
// earlier epoch did not finish are removed; its finished units stay, unless the
// epoch is there to replace those.
type EpochSpec struct {
	Epoch   int32 `json:"epoch"`
	From    int64 `json:"from"`              // or LogStart
	Replace bool  `json:"replace,omitempty"` // what the epoch before holds at or beyond From was found broken: its finished units go, too
}

// OpenEpoch opens the next epoch of a partition. The member that owns the
// partition moves there at once. who and why stay in the registry's history.
func OpenEpoch(ctx context.Context, reg *registry.Registry, sink Sink, tp stream.TopicPartition, from int64, who, why string) (int32, error) {
	ledger, err := sink.Epochs(ctx, tp.Topic, tp.Partition)
	if err != nil {
		return 0, fmt.Errorf("open an epoch of %v: read the ledger: %w", tp, err)
	}
	last := int32(-1)
	if n := len(ledger); n > 0 {
		last = ledger[n-1].Epoch
	}
	for {
		opened, version, err := openedEpoch(reg.State(), tp)
		if err != nil {
			return 0, err
		}
		if version > 0 {
			last = max(last, opened.Epoch)
		}
		err = putEpoch(ctx, reg, tp, version, EpochSpec{Epoch: last + 1, From: from}, who, why)
		if !errors.Is(err, registry.ErrStale) {
			return last + 1, err
		}
	}
}

// putEpoch opens an epoch where the partition's definition still has a version;
// else the error is [registry.ErrStale].
func putEpoch(ctx context.Context, reg *registry.Registry, tp stream.TopicPartition, version uint64, e EpochSpec, who, why string) error {
	spec, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = reg.Apply(ctx, registry.Entry{Kind: EpochKind, Name: tp.String(), Op: registry.Put, Expect: version, Spec: spec, Who: who, Why: why})
	if err != nil {
		return fmt.Errorf("open epoch %d of %v: %w", e.Epoch, tp, err)
	}
	return nil
}

// openedEpoch returns the newest epoch that the registry opens for a
// partition, and the definition's version, 0 when there is none.
func openedEpoch(s *registry.State, tp stream.TopicPartition) (EpochSpec, uint64, error) {
	d, ok := s.Get(EpochKind, "", tp.String())
	if !ok {
		return EpochSpec{}, 0, nil
	}
	var spec EpochSpec
	if err := json.Unmarshal(d.Spec, &spec); err != nil {
		return EpochSpec{}, 0, fmt.Errorf("definition Epoch %v: %w", tp, err)
	}
	return spec, d.Version, nil
}
