package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/query"
)

// What would change nothing is refused, with what is the matter.
func TestDecisionsThatDecideNothing(t *testing.T) {
	opened := time.Date(2026, 3, 1, 9, 45, 0, 0, time.UTC)
	for _, c := range []struct {
		state string
		until time.Time
		says  string
	}{
		{"open", time.Time{}, ""},
		{"open", opened.Add(time.Second), ""},
		{"snoozed", opened.Add(time.Hour), ""},
		{"acknowledged", time.Time{}, ""},
		{"silenced", time.Time{}, ""},
		{"open", opened, "accept a1: until 2026-03-01T09:45:00Z is not after it opened, at 2026-03-01T09:45:00Z"},
		{"resolved", time.Time{}, "accept a1: it is resolved, and open no more"},
		{"accepted", time.Time{}, "accept a1: it is accepted, and open no more"},
		{"lapsed", opened.Add(time.Hour), "accept a1: it is lapsed, and open no more"},
	} {
		f := &query.Frame{Columns: []query.Column{{Name: "id", Values: []string{"a1"}}, {Name: "state", Values: []string{c.state}}, {Name: "opened", Values: []time.Time{opened}}}}
		err := decidable(f, 0, drift.Accept, c.until)
		if (err == nil) != (c.says == "") || err != nil && !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%s, until %v: %v, want %q", c.state, c.until, err, c.says)
		}
	}
}
