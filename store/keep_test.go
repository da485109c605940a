package store_test

import (
	"errors"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// TestDeletedIsNotAsked: a subject whose definition is gone has no rows to ask
// for, and those of others stay; defined again, it has its rows.
func TestDeletedIsNotAsked(t *testing.T) {
	s := open(t)
	schema := func(name string, id uint64) *event.Schema {
		return event.NewSchema(event.Features, "keep", name, id, []event.Field{{Name: "k", Type: event.ColumnType{Elem: event.Int64}}}, nil)
	}
	a, b := schema("stays", 910_001), schema("goes", 910_002)
	if err := s.Prepare(t.Context(), []*event.Schema{a, b}); err != nil {
		t.Fatal(err)
	}
	ask := func(view string) error {
		_, err := s.Rows(t.Context(), query.Request{Namespace: "keep", View: view})
		return err
	}
	s.Keep([]*event.Schema{a})
	if err := ask("stays"); err != nil {
		t.Error(err)
	}
	if err := ask("goes"); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("a view that is not defined: %v", err)
	}
	if err := s.Prepare(t.Context(), []*event.Schema{b}); err != nil {
		t.Fatal(err)
	}
	if err := ask("goes"); err != nil {
		t.Error(err)
	}
}
