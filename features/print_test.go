package features

import (
	"math"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestFloatsAsPythonWritesThem asks Python itself.
func TestFloatsAsPythonWritesThem(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		testenv.Skip(t, testenv.NoTool, "python3")
	}
	values := []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 7, 1e15, 999999999999999, 1e16, 1.5e16, 9007199254740993, 123456789012345680, 1e17, 1e22, 1e23,
		1e-4, 1e-5, 0.00012345, 1.2345e-5, 5e-324, math.MaxFloat64, 1e100, float64(float32(0.1)), 1e15 + 0.5, -2.5e-7, 4503599627370497.5, 100, 1234567.0}
	for range 2000 {
		values = append(values, rapid.Float64().Example(len(values)))
	}
	var in []byte
	for _, v := range values {
		in = append(strconv.AppendFloat(in, v, 'e', -1, 64), '\n')
	}
	cmd := exec.Command(python, "-c", "import json,sys\nfor x in sys.stdin: print(json.dumps(float(x)))")
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range strings.Fields(string(out)) {
		if got := string(appendFloat(nil, values[i])); got != want {
			t.Errorf("%x: %s, Python writes %s", values[i], got, want)
		}
	}
}

// TestTimesAsRFC3339 compares with the standard library's layouts.
func TestTimesAsRFC3339(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		micros := rapid.OneOf(rapid.Int64Range(-62_135_596_800_000_000, 253_402_300_799_999_999), rapid.Int64Range(-300_000_000, 300_000_000), rapid.Int64()).Draw(t, "µs")
		micros -= micros % rapid.SampledFrom([]int64{1, 1_000, 1_000_000}).Draw(t, "unit")
		layout := "2006-01-02T15:04:05.000000Z"
		at := time.UnixMicro(micros).UTC()
		if year := at.Year(); year >= 0 && year <= 9999 {
			layout = map[bool]string{true: "2006-01-02T15:04:05Z", false: "2006-01-02T15:04:05.000Z"}[micros%1_000_000 == 0]
			if micros%1_000 != 0 {
				layout = "2006-01-02T15:04:05.000000Z"
			}
		}
		if got, want := string(appendTime(nil, micros)), at.Format(layout); got != want {
			t.Fatalf("%d: %s, want %s", micros, got, want)
		}
	})
}
