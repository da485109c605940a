package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// driftSays is what the commands of docs/drift.md answer, by a part of the block
// that they stand in, in their order. What a server has to find out first is
// asked again until it has.
var driftSays = []struct {
	part string
	wait bool
	says []string
}{
	{part: "awk"},
	{part: "kedge compare", says: []string{"transfer moved", "vicprice is as the reference has it", "status 3", "\n1\n"}},
	{part: "kedge replay early", says: []string{"1900 events sent"}},
	{part: "kedge apply", says: []string{"7 columns, windows of 24h0m0s", "Monitor elec: version 1"}},
	{part: "monitor list", wait: true, says: []string{"watching", "1996-06-15T00:00:00Z", "smallest_detectable", "transfer"}},
	{part: "kedge drift", says: []string{",elec,transfer,ks,1996-06-13T00:00:00Z,", "it was always 0.414912 in the reference", "it matters much to the model", "< 0.414912"}},
	{part: "backtest", says: []string{"9 windows, 1 incidents", "transfer   ks"}},
	{part: "report", says: []string{"<title>elec"}},
	{part: "incident accept"},
	{part: "query incidents", wait: true, says: []string{",accepted,", "the line to Victoria is open"}},
	{part: "kedge replay late", says: []string{"100 events sent"}},
	{part: "query incidents", wait: true, says: []string{",lapsed,", ",open,critical,elec,transfer,ks,1996-06-17T00:00:00Z,", "what was accepted by", "until 1996-06-16T00:00:00Z: the line to Victoria is open, is normal no longer"}},
}

// TestDriftDocument walks docs/drift.md from two files to an incident that was
// accepted, its commands as they are written, in a fresh folder beside one kedge.
func TestDriftDocument(t *testing.T) {
	t.Parallel() // it waits for most of its time
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "drift.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := documentFolder(t)
	p := startKedge(t, filepath.Join(dir, "kedge-data"))
	walked := 0
	for _, f := range fences(string(text)) {
		if f[0] != "" {
			continue
		}
		if walked == len(driftSays) {
			t.Fatalf("nothing is said of this block:\n%s", f[1])
		}
		step := driftSays[walked]
		if !strings.Contains(f[1], step.part) {
			t.Fatalf("want the block with %q here:\n%s", step.part, f[1])
		}
		walked++
		once := func() error {
			out, err := inDocument(t, p, dir, f[1])
			return errors.Join(err, missing(out, step.says))
		}
		if step.wait {
			testenv.Eventually(t, 2*time.Minute, once)
		} else if err := once(); err != nil {
			t.Fatal(err)
		}
		if step.part == "kedge replay early" {
			p.caughtUp(1900)
		}
	}
	if walked < len(driftSays) {
		t.Errorf("the document has no block with %q", driftSays[walked].part)
	}
}
