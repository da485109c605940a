package app

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
)

// TestRetentionTakesMoreThanDefining: whoever may define a view may not remove its
// rows by keeping them for a shorter time, nor have them kept longer.
func TestRetentionTakesMoreThanDefining(t *testing.T) {
	reg, err := registry.Open(t.Context(), memlog.New(nil))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = reg.Run(t.Context()) }() // ends with the test
	a := &App{registry: reg}
	const view, model = `{"origin":"declared","keys":[{"name":"k","type":"Int64"}],"columns":[],"ttl":"%s"%s}`, `{"origin":"declared","signatures":[],"task":"%s"%s}`
	for kind, format := range map[string]string{event.FeatureViewKind: view, event.ModelKind: model} {
		spec := func(other, more string) json.RawMessage { return fmt.Appendf(nil, format, other, more) }
		const kept = `,"retention":{"rows":"30d"}`
		if _, err := reg.Apply(t.Context(), registry.Entry{Kind: kind, Namespace: "growth", Name: "v", Op: registry.Put, Spec: spec("1h", kept)}); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			name string
			spec json.RawMessage
			may  bool
		}{
			"as it was":        {"v", spec("2h", kept), true},
			"shorter":          {"v", spec("1h", `,"retention":{"rows":"1d"}`), false},
			"none":             {"v", spec("1h", ""), false},
			"deletes it":       {"v", nil, false},
			"new without":      {"w", spec("1h", ""), true},
			"new with its own": {"w", spec("1h", kept), false},
		} {
			d := Definition{Kind: kind, Name: c.name, Spec: c.spec}
			if err := a.mayDefine(auth.Caller{Subject: "sam", Namespace: "growth"}, d); (err == nil) != c.may {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
}

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
