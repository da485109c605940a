package features

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// epochKind is the registry kind under which ingest opens epochs, one
// definition per partition, named topic/partition.
const epochKind = "Epoch"

// epochSpan says that records from an offset on belong to an epoch, unless a
// later one claims them.
type epochSpan struct {
	Epoch int32 `json:"epoch"`
	From  int64 `json:"from"` // -1: from the beginning
}

// epochsOf lists the epochs that were opened for a partition, oldest first, as
// of a registry offset. The comparator needs the same epoch that the stored row
// has.
func epochsOf(r *registry.Registry, tp stream.TopicPartition, offset int64) ([]epochSpan, error) {
	var out []epochSpan
	for _, d := range r.History(epochKind, "", tp.String()) {
		if d.Deleted || d.Offset > offset {
			continue
		}
		var e epochSpan
		if err := json.Unmarshal(d.Spec, &e); err != nil {
			return nil, fmt.Errorf("epochs of %v: %w", tp, err)
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b epochSpan) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return out, nil
}

// epochAt is the newest epoch that claims an offset, and up to where (maxTime:
// no end in sight). Records that no epoch claims belong to epoch 0.
func epochAt(spans []epochSpan, offset int64) (epoch int32, until int64) {
	until = maxTime
	for _, e := range slices.Backward(spans) {
		if e.From <= offset {
			return e.Epoch, until
		}
		until = min(until, e.From)
	}
	return 0, until
}
