package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestProducerSnippets runs the snippets for other languages as they stand in
// examples, against the embedded broker.
func TestProducerSnippets(t *testing.T) {
	java, err := exec.LookPath("java")
	if err != nil {
		testenv.Skip(t, testenv.NoTool, "java is not installed: %v", err)
	}
	jars := filepath.Join(testenv.Dep(t, "kafka/libs"), "*")
	p := startKedge(t, t.TempDir())
	for _, args := range [][]string{
		{"go", "run", "../../examples/producers", p.kafka},
		{java, "-cp", jars, "../../examples/producers/Produce.java", p.kafka},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	p.caughtUp(6)
	p.checkLedger(6, 0)
	rows := p.must("query", "rows", "--view", "user", "--from", "1h", "-o", "csv")
	for _, want := range []string{"12.5", "IT", "7.25", "FR"} {
		if !strings.Contains(rows, want) {
			t.Errorf("rows have no %s: %s", want, rows)
		}
	}
	if out := p.must("query", "rows", "--model", "churn", "--from", "1h", "-o", "csv"); !strings.Contains(out, "go-1") || !strings.Contains(out, "java-1") {
		t.Errorf("predictions: %s", out)
	}
}
