package ingest_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ebitengine/purego"

	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// failWrites fails ten writes of new parts, one after the other: any file, of
// an insert or a merge.
func failWrites(ctx context.Context) {
	var arm func(part string, nth, forever int32)
	var left func() int32
	purego.RegisterLibFunc(&arm, purego.RTLD_DEFAULT, "fault_arm")
	purego.RegisterLibFunc(&left, purego.RTLD_DEFAULT, "fault_left")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n < 10; {
		if left() == 0 {
			n++
			arm([]string{"/tmp_insert", "/tmp_insert", "/tmp_merge"}[n%3], 1+rand.Int32N(60), 0)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// TestFailedWritesUnderIngest lets writes of the engine fail for want of space,
// which it answers with "done", while events come.
func TestFailedWritesUnderIngest(t *testing.T) {
	t.Parallel()
	for name, guards := range map[string]ingest.Guards{"noticed": {}, "control": {NoCount: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "noticed" {
				w := underFailedWrites(t, guards)
				w.verify()
				return
			}
			for range 5 { // writes that fail may all be of tables being made, which are made again
				if v := underFailedWrites(t, guards).audit(); len(v.faults) > 0 {
					t.Logf("as it should, the comparison fails: %s", v.faults[0])
					return
				}
			}
			t.Error("nothing is wrong although a guard was taken away")
		})
	}
}

// underFailedWrites stores events while writes fail, and some more after that.
func underFailedWrites(t *testing.T, guards ingest.Guards) *world {
	t.Helper()
	w := newWorld(t, false)
	w.produce(6000)
	w.cfg.Guards, w.cfg.Faults = guards, true
	c := w.consumer(testenv.Preload(t))
	c.await(t, "ready")
	w.await(c, 3*time.Minute)
	c.stop(t)
	t.Logf("the log tells %d times of a failed write", strings.Count(c.stderr.String(), "CANNOT_WRITE_TO_FILE_DESCRIPTOR"))
	w.cfg.Faults = false
	c = w.consumer()
	w.produce(1000)
	w.await(c, 2*time.Minute)
	c.stop(t)
	return w
}

func noteFlushes(file string) {
	var note func(file string)
	purego.RegisterLibFunc(&note, purego.RTLD_DEFAULT, "fault_note_flushes")
	note(file)
}

// TestPowerLossFlushes looks at which files the engine flushes before it goes
// on: with durability: power, those of every part, inserted or merged, and the
// part's folder; else none.
func TestPowerLossFlushes(t *testing.T) {
	t.Parallel()
	for name, power := range map[string]bool{"power": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, false)
			w.cfg.Power, w.cfg.MaxRows, w.flushes = power, 100, filepath.Join(w.dir, "flushed")
			w.produce(3000)
			c := w.consumer(testenv.Preload(t))
			w.await(c, 2*time.Minute)
			c.stop(t)
			flushed, missing, merged := w.flushedParts()
			t.Logf("%d files and folders of parts were flushed, %d were not; %d parts were merged", flushed, len(missing), merged)
			switch {
			case merged == 0:
				t.Error("nothing was merged: half of it was not shown")
			case power && len(missing) > 0:
				t.Errorf("not flushed: %v", missing[:min(10, len(missing))])
			case !power && len(missing) == 0:
				t.Error("all is flushed although nobody asked for it")
			}
			w.verify()
		})
	}
}

var partFolder = regexp.MustCompile(`/store/(\w+/[-0-9a-f]+)/(\d+_\d+_\d+_(\d+)(?:_\d+)?|all_\d+_\d+_(\d+)(?:_\d+)?)$`)

// inserted is the path of a file of a part that an insert made, or of the part's
// folder, its number left out: while it is written it has another than it gets.
var inserted = regexp.MustCompile(`^(.*/store/\w+/[-0-9a-f]+/)(?:tmp_insert_)?(\w+)_\d+_\d+_0(/[^/]+)?$`)

func withoutNumber(path string) (string, bool) {
	m := inserted.FindStringSubmatch(path)
	if m == nil {
		return "", false
	}
	return m[1] + m[2] + m[3], true
}

// flushedParts compares the parts on the disk with the flushes that were noted.
// A part is written under another name than it gets.
func (w *world) flushedParts() (flushed int, missing []string, merged int) {
	w.t.Helper()
	text, err := os.ReadFile(w.flushes)
	if err != nil {
		w.t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(text)) {
		path := strings.TrimSuffix(strings.TrimSpace(line), "/")
		if name, ok := withoutNumber(path); ok {
			seen[name]++
			continue
		}
		seen[strings.NewReplacer("/tmp_merge_", "/", "/tmp_mut_", "/").Replace(path)]++
	}
	dirs, err := filepath.Glob(filepath.Join(w.storePath(), "engine/store/*/*/*"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, dir := range dirs {
		m := partFolder.FindStringSubmatch(dir)
		if m == nil {
			continue
		}
		if m[3]+m[4] != "0" {
			merged++
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, f := range append(files, dir) {
			name, ok := withoutNumber(f)
			if !ok {
				name = f
			}
			if seen[name] > 0 {
				flushed++
				if ok {
					seen[name]--
				}
			} else {
				missing = append(missing, f)
			}
		}
	}
	return flushed, missing, merged
}
