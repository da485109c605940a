package oip

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func parse(t *testing.T, body string) (*Request, error) {
	t.Helper()
	var r Request
	err := r.Parse([]byte(body), -1, DefaultLimits())
	return &r, err
}

func TestParseJSON(t *testing.T) {
	r, err := parse(t, `{"id":"a\u00e9\ud83d\ude00","parameters":{"timeout":500,"binary_data_output":true,"x":"y","n":[1,{"a":2}]},
	 "unknown":[{"deep":[1,2,"]"]}],
	 "inputs":[
	  {"data":[[1,2.5],["NaN",-3e2]],"shape":[2,2],"datatype":"FP32","name":"f"},
	  {"name":"i","shape":[2],"datatype":"INT64","data":[9223372036854775807,-1]},
	  {"name":"u","shape":[1],"datatype":"UINT8","data":[255]},
	  {"name":"b","shape":[2],"datatype":"BOOL","data":[true,false]},
	  {"name":"s","shape":[1,2],"datatype":"BYTES","data":["a]b","\"q\""]},
	  {"name":"empty","shape":[0,3],"datatype":"FP64","data":[]}],
	 "outputs":[{"name":"o","parameters":{"binary_data":true,"classification":3}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "aé😀" || r.Timeout != 500 || !r.BinaryAll || r.Params["x"] != "y" || r.Params["n"] != `[1,{"a":2}]` {
		t.Errorf("head: %+v", r)
	}
	f := r.Inputs[0]
	if f.Name != "f" || f.Floats[0] != 1 || f.Floats[1] != 2.5 || !math.IsNaN(f.Floats[2]) || f.Floats[3] != -300 {
		t.Errorf("f: %+v", f)
	}
	if got := r.Inputs[1].Ints; !reflect.DeepEqual(got, []int64{math.MaxInt64, -1}) {
		t.Errorf("i: %v", got)
	}
	if got := r.Inputs[4].Bytes; string(got[0]) != "a]b" || string(got[1]) != `"q"` {
		t.Errorf("s: %q", got)
	}
	if o := r.Outputs[0]; o.Name != "o" || !o.Binary || o.Classification != 3 {
		t.Errorf("output: %+v", o)
	}
}

// TestRefusals holds one sentence for each way in which a client can be wrong.
func TestRefusals(t *testing.T) {
	in := func(member string) string {
		return `{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]` + member + `}]}`
	}
	for _, c := range []struct{ body, want string }{
		{``, "expected '{'"},
		{`{"inputs":[]}`, "no inputs"},
		{`{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1]}]}`, "has 1 values and its shape [2] asks for 2"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1,2]}]}`, "more values than its shape"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP99","data":[1]}]}`, "unknown datatype"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[128]}]}`, "is not a INT8"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[1.5]}]}`, "is not a INT64"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":["abc"]}]}`, "is not a FP32"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[null]}]}`, "is not a FP64"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[01]}]}`, "is not a FP64"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}`, "is not a FP64"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP16","data":[1]}]}`, "only be sent as binary"},
		{`{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}]}`, "0 or more"},
		{`{"inputs":[{"name":"x","shape":[4611686018427387904,4],"datatype":"FP32","data":[1]}]}`, "more than"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}`, "neither data nor"},
		{`{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}`, "no name"},
		{`{"inputs":[{"name":"x","shape":[1],"data":[1]}]}`, "no datatype"},
		{in(`,"parameters":{"binary_data_size":4}`), "both data and binary"},
		{in(`}`), "expected"},
		{in(``) + `x`, "bytes after"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]},{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`, "sent twice"},
		{`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested too deep"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":` + strings.Repeat("[", 100) + `1` + strings.Repeat("]", 100) + `}]}`, "nested too deep"},
		{`{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["` + "\xff" + `"]}]}`, "UTF-8"},
		{`{"parameters":{"timeout":-1},"inputs":[]}`, "timeout is -1"},
	} {
		_, err := parse(t, c.body)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s\n got %v\nwant %s", c.body, err, c.want)
		}
	}
}

func TestBinary(t *testing.T) {
	head := `{"inputs":[{"name":"f","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},` +
		`{"name":"h","shape":[3],"datatype":"FP16","parameters":{"binary_data_size":6}},` +
		`{"name":"i","shape":[1],"datatype":"INT16","parameters":{"binary_data_size":2}},` +
		`{"name":"s","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}}]}`
	tail := binary.LittleEndian.AppendUint32(nil, math.Float32bits(0.1))
	tail = binary.LittleEndian.AppendUint32(tail, math.Float32bits(-2))
	for _, h := range []uint16{0x3c00, 0xc000, 0x0001} { // 1, -2, smallest subnormal
		tail = binary.LittleEndian.AppendUint16(tail, h)
	}
	tail = append(tail, 0xfe, 0xff, 3, 0, 0, 0, 'a', 'b', 'c', 0, 0, 0, 0)
	var r Request
	if err := r.Parse(append([]byte(head), tail...), len(head), DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	if got := r.Inputs[0].Floats; got[0] != float64(float32(0.1)) || got[1] != -2 {
		t.Errorf("FP32: %v", got)
	}
	if got := r.Inputs[1].Floats; got[0] != 1 || got[1] != -2 || got[2] != math.Pow(2, -24) {
		t.Errorf("FP16: %v", got)
	}
	if got := r.Inputs[2].Ints[0]; got != -2 {
		t.Errorf("INT16: %v", got)
	}
	if got := r.Inputs[3].Bytes; string(got[0]) != "abc" || len(got[1]) != 0 {
		t.Errorf("BYTES: %q", got)
	}
	for cut := range len(tail) {
		if err := r.Parse(append([]byte(head), tail[:cut]...), len(head), DefaultLimits()); !errors.Is(err, ErrInvalid) {
			t.Fatalf("binary tail cut at %d: %v", cut, err)
		}
	}
	if err := r.Parse(append(append([]byte(head), tail...), 0), len(head), DefaultLimits()); !errors.Is(err, ErrInvalid) {
		t.Errorf("a byte too many: %v", err)
	}
}

// TestResponseRoundTrip writes tensors and reads them back as a client would.
func TestResponseRoundTrip(t *testing.T) {
	res := Response{Model: "m\"", Version: "2", ID: "x", Params: []Param{{"variant", "a\n"}}, Outputs: []Tensor{
		{Name: "f", Datatype: FP32, Shape: []int64{4}, Floats: []float64{float64(float32(0.1)), 2, math.Inf(-1), 1e-9}},
		{Name: "s", Datatype: BYTES, Shape: []int64{1}, Bytes: [][]byte{[]byte("é\"")}},
	}}
	out, n := res.Append(nil)
	if n != -1 {
		t.Fatalf("header length of a JSON answer is %d", n)
	}
	want := `{"model_name":"m\"","model_version":"2","id":"x","parameters":{"variant":"a\u000a"},"outputs":[` +
		`{"name":"f","datatype":"FP32","shape":[4],"data":[0.1,2.0,"-Infinity",1e-09]},` +
		`{"name":"s","datatype":"BYTES","shape":[1],"data":["é\""]}]}`
	if string(out) != want {
		t.Errorf("\n got %s\nwant %s", out, want)
	}
	if !json.Valid(out) {
		t.Error("not JSON")
	}
	res.Binary = []bool{true, false}
	out, n = res.Append(nil)
	if !json.Valid(out[:n]) || len(out)-n != 16 {
		t.Errorf("binary answer: %d of %d bytes are JSON: %s", n, len(out), out)
	}
}

// FuzzParse compares with encoding/json: what this parser accepts, the
// standard library accepts too, with the same values.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":"1","inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[[1,2.5e3]]}]}`))
	f.Add([]byte(`{"inputs":[{"name":"x","shape":[2],"datatype":"BYTES","data":["a\ud83d","b\n"]}]}`))
	f.Add([]byte(`{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[-7]}],"parameters":{"a":{"b":[]}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r Request
		if err := r.Parse(body, -1, DefaultLimits()); err != nil {
			return
		}
		var ref struct {
			ID     string
			Inputs []struct {
				Name string
				Data json.RawMessage
			}
		}
		if err := json.Unmarshal(body, &ref); err != nil {
			if json.Valid(body) {
				return // encoding/json matches member names without regard to case
			}
			t.Fatalf("accepted what is not JSON: %q", body)
		}
		if !strings.Contains(strings.ToLower(string(body)), `"id":`) && r.ID != "" {
			t.Fatalf("id from nowhere: %q", r.ID)
		}
		if len(ref.Inputs) == len(r.Inputs) {
			for i, in := range r.Inputs {
				compareNumbers(t, in, ref.Inputs[i].Data)
			}
		}
	})
}

func compareNumbers(t *testing.T, in Tensor, data json.RawMessage) {
	var flat []float64
	if in.Datatype != FP64 || json.Unmarshal(data, &flat) != nil || len(flat) != len(in.Floats) {
		return
	}
	for i := range flat {
		if flat[i] != in.Floats[i] {
			t.Fatalf("value %d: %v, encoding/json reads %v", i, in.Floats[i], flat[i])
		}
	}
}

func BenchmarkParse30(b *testing.B) {
	vals := make([]string, 30)
	for i := range vals {
		vals[i] = fmt.Sprintf("%.6f", float64(i)*1.2345)
	}
	body := []byte(`{"id":"42","inputs":[{"name":"input","shape":[1,30],"datatype":"FP32","data":[` + strings.Join(vals, ",") + `]}]}`)
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(body, -1, DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}
