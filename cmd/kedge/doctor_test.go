package main

import (
	"archive/zip"
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// TestDoctorTellsNoSecrets plants canaries where secrets are and looks for them
// in everything that the bundle holds.
func TestDoctorTellsNoSecrets(t *testing.T) {
	const canary = "canary-0123456789abcdef"
	t.Setenv("KEDGE_SOURCES_HASH_KEY", canary)
	t.Setenv("KEDGE_SOURCES_SCHEMA_REGISTRY", "http://user:"+canary+"@127.0.0.1:1")
	p := startKedge(t, t.TempDir())
	p.send(`{"view":"user","key":{"user_id":7},"event_time":"2026-11-01T10:00:00Z","values":{"name":"` + canary + `"}}`)
	p.caughtUp(1)
	if out := p.sql(t, "SELECT v_name FROM kedge."+strings.TrimSpace(p.sql(t, "SELECT name FROM system.tables WHERE database = 'kedge' AND startsWith(name, 'features_')"))); !strings.Contains(out, canary) {
		t.Fatalf("the canary is not in the table: %s", out)
	}
	file := filepath.Join(t.TempDir(), "bundle.zip")
	out := p.must("doctor", "-o", file)
	if !strings.Contains(out, "nothing is wrong") {
		t.Errorf("doctor of a healthy server:\n%s", out)
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string]int{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = len(b)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds the canary:\n%s", f.Name, b)
		}
		if strings.HasSuffix(f.Name, ".error") {
			t.Errorf("%s: %s", f.Name, b)
		}
	}
	if len(files) != len(supportBundle())+1 || files["metrics.txt"] < 1000 || files["config.yaml"] < 100 {
		t.Errorf("the bundle holds %v", files)
	}
}
