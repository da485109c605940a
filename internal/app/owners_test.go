package app

import (
	"encoding/json"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
)

// TestOwnersAdministerTheirNamespace: an owner edits who owns the namespace and
// what is said of it, never what it may have, nor another's, nor deletes it.
func TestOwnersAdministerTheirNamespace(t *testing.T) {
	reg, err := registry.Open(t.Context(), memlog.New(nil))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = reg.Run(t.Context()) }() // ends with the test
	for _, ns := range []string{"growth", "fraud"} {
		if _, err := reg.Apply(t.Context(), registry.Entry{Kind: event.NamespaceKind, Namespace: ns, Name: ns, Op: registry.Put, Spec: json.RawMessage(`{"owners":["ann"],"weight":2,"quotas":{"rows":100}}`)}); err != nil {
			t.Fatal(err)
		}
	}
	a := &App{registry: reg}
	caller := func(subject string) auth.Caller {
		return auth.Caller{Subject: subject, Namespace: "growth"}
	}
	for name, c := range map[string]struct {
		who, namespace, spec string
		may                  bool
	}{
		"another owner":    {"ann", "growth", `{"owners":["ann","ben"],"weight":2,"quotas":{"rows":100},"description":"ours"}`, true},
		"more rows":        {"ann", "growth", `{"owners":["ann"],"weight":2,"quotas":{"rows":101}}`, false},
		"no quotas":        {"ann", "growth", `{"owners":["ann"],"weight":2}`, false},
		"more weight":      {"ann", "growth", `{"owners":["ann"],"weight":3,"quotas":{"rows":100}}`, false},
		"longer retention": {"ann", "growth", `{"owners":["ann"],"weight":2,"quotas":{"rows":100},"retention":{"rows":"1d"}}`, false},
		"another's":        {"ann", "fraud", `{"owners":["ann"],"weight":2,"quotas":{"rows":100}}`, false},
		"no owner":         {"ben", "growth", `{"owners":["ben"],"weight":2,"quotas":{"rows":100}}`, false},
		"nobody":           {"", "growth", `{"owners":[""],"weight":2,"quotas":{"rows":100}}`, false},
		"deletes it":       {"ann", "growth", "", false},
	} {
		d := Definition{Kind: event.NamespaceKind, Name: c.namespace}
		if c.spec != "" {
			d.Spec = json.RawMessage(c.spec)
		}
		if err := a.mayDefine(caller(c.who), d); (err == nil) != c.may {
			t.Errorf("%s: %v", name, err)
		}
	}
}
