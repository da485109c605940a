package auth

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/kedge-ml/kedge/registry"
)

// useKind is the kind of the entries that say when a key was used last. The
// log is kept for ever, so they are written once a day at most.
const useKind = "APIKeyUse"

type keyUse struct {
	Used time.Time `json:"used"`
}

// lastUsed is the newest of what this process saw and what was written.
func (k *Keys) lastUsed(h *heldKey) (t time.Time) {
	if d, ok := k.reg.State().Get(useKind, "", h.ID); ok {
		var u keyUse
		if json.Unmarshal(d.Spec, &u) == nil {
			t = u.Used
		}
	}
	if s := h.used.Load(); s > t.Unix() && s > 0 {
		t = time.Unix(s, 0).UTC()
	}
	return t
}

// SaveUse writes when keys were used last, where that day is not written yet.
func (k *Keys) SaveUse(ctx context.Context) error {
	var errs []error
	for _, h := range k.held.Load().byID {
		used := h.used.Load()
		if used == 0 {
			continue
		}
		at := time.Unix(used, 0).UTC().Truncate(24 * time.Hour)
		d, ok := k.reg.State().Get(useKind, "", h.ID)
		var was keyUse
		if ok && json.Unmarshal(d.Spec, &was) == nil && !was.Used.Before(at) {
			continue
		}
		spec, err := json.Marshal(keyUse{at})
		if err != nil {
			return err
		}
		_, err = k.reg.Apply(ctx, registry.Entry{Kind: useKind, Name: h.ID, Op: registry.Put, Expect: d.Version, Spec: spec, Who: "service:keys"})
		if err != nil && !errors.Is(err, registry.ErrStale) { // another process wrote it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
