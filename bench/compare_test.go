package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// compareData writes two Parquet files of a million rows, ten numbers and five
// categories each; the second has one of either moved.
const compareData = `
import sys
import numpy as np, pandas as pd
rng = np.random.default_rng(7)
for name, moved in (("reference", 0), ("current", 1)):
    n, d = int(sys.argv[2]), {}
    for i in range(10):
        d[f"x{i}"] = rng.normal(0.1 * moved * (i == 3), 1, n) if i % 2 else rng.lognormal(0, 1, n)
    for i in range(5):
        p = 1 / np.arange(1, 21 + 40 * i)
        if i == 2 and moved:
            p[0] *= 1.3
        d[f"c{i}"] = rng.choice([f"v{k}" for k in range(len(p))], n, p=p / p.sum())
    pd.DataFrame(d).to_parquet(f"{sys.argv[1]}/{name}.parquet")
`

// compareEvidently is Evidently's own data drift preset on the files.
const compareEvidently = `
import sys
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
ref, cur = (pd.read_parquet(f"{sys.argv[1]}/{n}.parquet") for n in ("reference", "current"))
Report([DataDriftPreset()]).run(reference_data=ref, current_data=cur).dict()
`

// run answers a command's wall time and its largest resident memory.
func run(b *testing.B, accept int, name string, args ...string) (wall time.Duration, bytes float64) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), name, args...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != accept {
		b.Fatalf("%s: %v\n%s", name, err, out)
	}
	return time.Since(begin), float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024
}

// BenchmarkCompareBesideEvidently compares a million rows with a million from
// cold Parquet, `kedge compare` and Evidently in turn. KEDGE_EVIDENTLY is the
// Python of an environment with evidently==0.7.23, pandas==2.3.3 and pyarrow,
// which takes ten minutes to install and is no part of make deps.
func BenchmarkCompareBesideEvidently(b *testing.B) {
	python := os.Getenv("KEDGE_EVIDENTLY")
	if python == "" {
		testenv.Skip(b, testenv.Short, "set KEDGE_EVIDENTLY to the Python of an environment with evidently")
	}
	rows, dir := 1_000_000, b.TempDir()
	run(b, 0, python, "-c", compareData, dir, fmt.Sprint(rows))
	kedge := filepath.Join(dir, "kedge")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-o", kedge, "./cmd/kedge")
	build.Dir = testenv.Root(b)
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	for b.Loop() {
		ours, ourBytes := run(b, 3, kedge, "compare", filepath.Join(dir, "reference.parquet"), filepath.Join(dir, "current.parquet"))
		theirs, theirBytes := run(b, 0, python, "-c", compareEvidently, dir)
		b.ReportMetric(ours.Seconds(), "kedge-s")
		b.ReportMetric(theirs.Seconds(), "evidently-s")
		b.ReportMetric(ourBytes/(1<<20), "kedge-MiB")
		b.ReportMetric(theirBytes/(1<<20), "evidently-MiB")
		b.ReportMetric(theirs.Seconds()/ours.Seconds(), "times-faster")
	}
}
