package drift

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kedge-ml/kedge/store"
)

// FileReference is what a reference made from a file holds: a baseline per
// column. Its bytes lie in the store; a monitor names it.
type FileReference struct {
	Columns map[string]*Baseline `json:"columns"`
}

// Validate checks that every column is whole.
func (r *FileReference) Validate() error {
	if len(r.Columns) == 0 {
		return fmt.Errorf("a reference needs columns")
	}
	for name, b := range r.Columns {
		if b == nil || b.Grid == nil || b.Reference == nil {
			return fmt.Errorf("column %s: want grid and reference", name)
		}
		if b.Grid.ID() != b.Reference.GridID {
			return fmt.Errorf("column %s: the reference was counted on another grid", name)
		}
		if _, err := b.Reference.Dense(b.Grid); err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
	}
	return nil
}

// SaveReference stores a reference under a name. Monitors that stand on an
// earlier one of that name keep what they have learnt until their definition
// changes: verdicts given keep their meaning.
func SaveReference(ctx context.Context, st *store.Store, namespace, name string, r *FileReference, revision uint64) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("reference %s: %w: %w", name, store.ErrInvalid, err)
	}
	parts := map[string]string{}
	for column, b := range r.Columns {
		text, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("reference %s: %w", name, err)
		}
		parts[baselinePart+column] = string(text)
	}
	return st.SaveMonitorState(ctx, namespace, FileMonitor(name), parts, revision)
}
