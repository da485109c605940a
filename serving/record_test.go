package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/stream"
)

// TestRecordHoldsTheExactInputs sends one row of every datatype, alone and with
// another, and a matrix of either width: the record has what was sent.
func TestRecordHoldsTheExactInputs(t *testing.T) {
	r := newRig(t)
	m := sum("1", 1, 1, 1, 1, 1)
	for i, typ := range []string{"Float32", "Float64", "Int64", "Bool", "String"} {
		m.Signature.Inputs[i].Type = typ
	}
	m.Signature.Inputs[4].Categories = []string{"a", "ä\""}
	if err := r.s.Load(m); err != nil {
		t.Fatal(err)
	}
	matrix := sum("1", 1, 1)
	matrix.Name = "matrix"
	if err := r.s.Load(matrix); err != nil {
		t.Fatal(err)
	}
	row := func(n string, data ...string) string {
		var in []string
		for i, d := range []string{"FP32", "FP64", "INT64", "BOOL", "BYTES"} {
			in = append(in, fmt.Sprintf(`{"name":"f%d","shape":[%s],"datatype":%q,"data":[%s]}`, i, n, d, data[i]))
		}
		return strings.Join(in, ",")
	}
	for id, q := range map[string][2]string{
		"one":  {"fraud", row("1", "0.1", "0.1", "9007199254740993", "true", `"a"`)},
		"two":  {"fraud", row("2", `"NaN",0.3`, "1e-300,-0.5", "-1,0", "false,true", `"ä\"","a"`)},
		"fp32": {"matrix", `{"name":"input","shape":[2,2],"datatype":"FP32","data":[0.1,0.2,0.30000001,4]}`},
		"fp64": {"matrix", `{"name":"input","shape":[1,2],"datatype":"FP64","data":[0.1,1e300]}`},
	} {
		if status, body, _ := r.post("/v2/models/"+q[0]+"/infer", fmt.Sprintf(`{"id":%q,"inputs":[%s]}`, id, q[1])); status != 200 {
			t.Fatalf("%s: %d %s", id, status, body)
		}
	}
	got := map[string]string{}
	for _, p := range r.recorded(6) {
		got[p["id"].(string)] = fmt.Sprint(p["inputs"])
	}
	for id, want := range map[string]string{
		"one":    "map[f0:0.1 f1:0.1 f2:9.007199254740992e+15 f3:true f4:a]", // the test reads integers as floats
		"two/0":  `map[f0:NaN f1:1e-300 f2:-1 f3:false f4:ä"]`,
		"two/1":  "map[f0:0.3 f1:-0.5 f2:0 f3:true f4:a]",
		"fp32/0": "map[f0:0.1 f1:0.2]",
		"fp32/1": "map[f0:0.3 f1:4]",
		"fp64":   "map[f0:0.1 f1:1e+300]",
	} {
		if got[id] != want {
			t.Errorf("%s: %s, want %s", id, got[id], want)
		}
	}
}

// TestLargeRequestsAreSeveralRecords holds that no row of a request is lost or
// numbered twice where one record would be too long, and that rows of uneven length
// make no record beyond what brokers take.
func TestLargeRequestsAreSeveralRecords(t *testing.T) {
	r := newRig(t)
	m := sum("1", 1)
	m.Signature.Inputs[0].Type, m.Signature.Inputs[0].Categories, m.Signature.Inputs[0].Other = "String", []string{"a"}, true
	if err := r.s.Load(m); err != nil {
		t.Fatal(err)
	}
	const rows = 9000
	var texts strings.Builder
	for i := range rows {
		if i > 0 {
			texts.WriteByte(',')
		}
		fmt.Fprintf(&texts, "%q", strings.Repeat("x", 1+i%3/2*1000*(i/8000))) // the last ones are long
	}
	ask := fmt.Sprintf(`{"id":"p","inputs":[{"name":"f0","shape":[%d],"datatype":"BYTES","data":[%s]}]}`, rows, &texts)
	if status, body, _ := r.post("/v2/models/fraud/infer", ask); status != 200 {
		t.Fatalf("%d %.200s", status, body)
	}
	seen := map[string]bool{}
	for _, p := range r.recorded(rows) {
		seen[p["id"].(string)] = true
	}
	for i := range rows {
		if !seen[fmt.Sprintf("p/%d", i)] {
			t.Fatalf("row %d is not on the record", i)
		}
	}
	if c := r.s.Records(); c.Recorded != rows || c.Failed+c.Dropped+c.Sampled > 0 {
		t.Errorf("%+v", c)
	}
}

// TestClassesAreRecorded holds the outputs of tasks whose answers have names.
func TestClassesAreRecorded(t *testing.T) {
	r := newRig(t)
	m := sum("1", 1)
	m.Predictor, m.Signature.Task = twice{weights{1}}, model.MultiClass
	m.Signature.Outputs = []model.Output{{Name: "p", Width: 2, Classes: []string{"no", "yes"}}}
	if err := r.s.Load(m); err != nil {
		t.Fatal(err)
	}
	if status, body, _ := r.post("/v2/models/fraud/infer", `{"id":"p","inputs":[{"name":"f0","shape":[2],"datatype":"FP32","data":[0.25,0.5]}]}`); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	got := map[string]string{}
	for _, p := range r.recorded(2) {
		got[p["id"].(string)] = fmt.Sprint(p["output"])
	}
	if fmt.Sprint(got) != "map[p/0:map[scores:map[no:0.25 yes:0.5]] p/1:map[scores:map[no:0.5 yes:1]]]" {
		t.Error(got)
	}
}

// twice answers x and 2x.
type twice struct{ weights }

func (twice) Outputs() int { return 2 }

func (twice) Predict(out, rows []float32) {
	for i, x := range rows {
		out[2*i], out[2*i+1] = x, 2*x
	}
}

// TestRingIsBoundedInBytes holds that long records fill the ring as many short ones do,
// what is under way included.
func TestRingIsBoundedInBytes(t *testing.T) {
	held := make(chan struct{})
	stuck := func(ctx context.Context, _ string, _ ...stream.Message) error { <-held; return nil }
	rec := newRecorder(1000, 100, "t", stuck, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { rec.run(ctx, time.Second); close(done) }()
	long := parcel{msg: stream.Message{Value: make([]byte, 45)}, rows: 10}
	for range 3 {
		if err := rec.put(ctx, Drop, long); err != nil {
			t.Fatal(err)
		}
	}
	if c := rec.Counts(); c.Dropped != 10 {
		t.Errorf("with 90 of 100 bytes taken: %+v", c)
	}
	waited := make(chan error, 1)
	go func() { waited <- rec.put(ctx, Block, long) }()
	close(held)
	if err := <-waited; err != nil {
		t.Errorf("block: %v", err)
	}
	cancel()
	<-done
	if c := rec.Counts(); c.Recorded != 30 || c.Failed != 0 {
		t.Errorf("%+v", c)
	}
	if err := rec.put(t.Context(), Block, long); err != nil || rec.Counts().Failed != 10 {
		t.Errorf("after the end: %v %+v", err, rec.Counts())
	}
}

// TestRefusedRecordsHoldUpNobody lets a broker store one record of a batch, refuse
// one for its size and fail at one: only the last is sent again.
func TestRefusedRecordsHoldUpNobody(t *testing.T) {
	tries := map[string]int{}
	send := func(_ context.Context, _ string, msgs ...stream.Message) error {
		errs := make([]error, len(msgs))
		failed := false
		for i, m := range msgs {
			tries[string(m.Key)]++
			switch {
			case string(m.Key) == "huge":
				errs[i] = fmt.Errorf("broker: %w", stream.ErrTooLarge)
			case string(m.Key) == "late" && tries["late"] == 1:
				errs[i] = errors.New("no leader")
			}
			failed = failed || errs[i] != nil
		}
		if failed {
			return &stream.ProduceError{Errs: errs}
		}
		return nil
	}
	rec := newRecorder(10, 10<<20, "t", send, slog.New(slog.DiscardHandler))
	for key, size := range map[string]int{"fine": 1, "huge": 1 << 20, "late": 1} {
		rec.put(t.Context(), Block, parcel{msg: stream.Message{Key: []byte(key), Value: make([]byte, size)}, rows: 1})
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { rec.run(ctx, time.Second); close(done) }()
	testenv.Eventually(t, 10*time.Second, func() error {
		if c := rec.Counts(); c.Recorded != 2 || c.Failed != 1 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	cancel()
	<-done
	if fmt.Sprint(tries) != "map[fine:1 huge:1 late:2]" {
		t.Error(tries)
	}
}
