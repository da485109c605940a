package app

import (
	"testing"

	"github.com/kedge-ml/kedge/trainer"
)

// TestLearntFromUnknown: a version whose data cannot be looked at may have
// learnt from an entity that is erased.
func TestLearntFromUnknown(t *testing.T) {
	for name, v := range map[string]trainer.ModelVersion{"not Kedge's": {Version: "1"}, "folder cannot be read": {Version: "1", Artifact: "0123"}} {
		if learntFrom(nil, v, []string{"driver"}) == "" {
			t.Errorf("%s: it is not due", name)
		}
	}
}
