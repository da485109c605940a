package serving

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/onnx"
	"github.com/kedge-ml/kedge/serving/oip"
)

// askFor is an inference request of one tensor.
func askFor(name, shape, datatype, data string) string {
	return fmt.Sprintf(`{"inputs":[{"name":%q,"shape":%s,"datatype":%q,"data":%s}]}`, name, shape, datatype, data)
}

// tensorPB is one input of a ModelInferRequest with FP32 contents, or raw ones.
type tensorPB struct {
	name, datatype string
	shape          []int64
	floats         []float32
	raw            []byte
}

func inferPB(model, version string, tensors ...tensorPB) []byte {
	b := oip.AppendProtoString(nil, 1, model)
	b = oip.AppendProtoString(b, 2, version)
	var raws []byte
	for _, t := range tensors {
		m := oip.AppendProtoString(nil, 1, t.name)
		m = oip.AppendProtoString(m, 2, t.datatype)
		m = oip.AppendProtoShape(m, 3, t.shape)
		if t.floats != nil {
			var packed []byte
			for _, f := range t.floats {
				packed = protowire.AppendFixed32(packed, math.Float32bits(f))
			}
			m = appendMessage(m, 5, appendMessage(nil, 6, packed))
		}
		b = appendMessage(b, 5, m)
		if t.raw != nil {
			raws = appendMessage(raws, 7, t.raw)
		}
	}
	return append(b, raws...)
}

func dialGRPC(t *testing.T, s *Server) func([]byte) ([]byte, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewGRPC(s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(ln) }()
	c, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); g.Stop(); <-done })
	return func(b []byte) ([]byte, error) {
		var out wire
		err := c.Invoke(t.Context(), "/inference.GRPCInferenceService/ModelInfer", &wire{b}, &out)
		return out.b, err
	}
}

// TestBadInput sends what clients get wrong, over REST and gRPC: each is
// refused with its status and a word that helps, each is counted, and the
// server answers the next good request.
func TestBadInput(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	invoke := dialGRPC(t, r.s)
	head := `{"inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}`
	nan := string([]byte{0, 0, 0xc0, 0x7f})
	huge := int64(r.s.cfg.MaxBody)
	for name, c := range map[string]struct {
		path   string // "/v2/models/fraud/infer" unless stated
		body   string
		header string // value of Inference-Header-Content-Length
		status int
		pb     []byte
		code   codes.Code
		says   string
	}{
		"wrong datatype":         {body: askFor("input", "[1,2]", "INT64", "[1,2]"), status: 400, pb: inferPB("fraud", "", tensorPB{"input", "INT64", []int64{1, 2}, nil, make([]byte, 16)}), code: codes.InvalidArgument, says: "FP32 or FP64"},
		"unknown datatype":       {body: askFor("input", "[1,2]", "FP8", "[1,2]"), status: 400, pb: inferPB("fraud", "", tensorPB{"input", "FP8", []int64{1, 2}, []float32{1, 2}, nil}), code: codes.InvalidArgument, says: "FP8"},
		"wrong width":            {body: askFor("input", "[1,3]", "FP32", "[1,2,3]"), status: 400, pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{1, 3}, []float32{1, 2, 3}, nil}), code: codes.InvalidArgument, says: "want [rows, 2]"},
		"shape against values":   {body: askFor("input", "[2,2]", "FP32", "[1,2,3]"), status: 400, pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{2, 2}, []float32{1, 2, 3}, nil}), code: codes.InvalidArgument, says: "3 values"},
		"negative shape":         {body: askFor("input", "[-1,2]", "FP32", "[1,2]"), status: 400, pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{-1, 2}, []float32{1, 2}, nil}), code: codes.InvalidArgument, says: "shape"},
		"absurd shape":           {body: askFor("input", "[4611686018427387904,4]", "FP32", "[1,2]"), status: 400, pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{1 << 62, 4}, []float32{1, 2}, nil}), code: codes.InvalidArgument, says: "more than 16777216 values"},
		"missing tensor":         {body: askFor("f0", "[1]", "FP32", "[1]"), status: 400, pb: inferPB("fraud", "", tensorPB{"f0", "FP32", []int64{1}, []float32{1}, nil}), code: codes.InvalidArgument, says: `input "f1" is missing`},
		"extra tensor":           {body: `{"inputs":[{"name":"f0","shape":[1],"datatype":"FP32","data":[1]},{"name":"zz","shape":[1],"datatype":"FP32","data":[1]}]}`, status: 400, pb: inferPB("fraud", "", tensorPB{"f0", "FP32", []int64{1}, []float32{1}, nil}, tensorPB{"zz", "FP32", []int64{1}, []float32{1}, nil}), code: codes.InvalidArgument, says: `unexpected input "zz"`},
		"no tensors":             {body: `{"inputs":[]}`, status: 400, pb: inferPB("fraud", ""), code: codes.InvalidArgument, says: "no inputs"},
		"no JSON":                {body: `{"inputs":[{"na`, status: 400, says: "malformed"},
		"bare NaN":               {body: askFor("input", "[1,2]", "FP32", "[NaN,2]"), status: 400, says: "is not a FP32"},
		"truncated binary":       {body: head + "1234", header: strconv.Itoa(len(head)), status: 400, pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{1, 2}, nil, []byte("1234567")}), code: codes.InvalidArgument, says: "bytes"},
		"header longer than all": {body: head, header: "100000", status: 400, says: "bytes"},
		"header is no number":    {body: head, header: "-7", status: 400, says: "want a number of bytes"},
		"cut message":            {pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{1, 2}, []float32{1, 2}, nil})[:20], code: codes.InvalidArgument, says: "malformed"},
		"unknown model":          {path: "/v2/models/nope/infer", body: askFor("input", "[1,2]", "FP32", "[1,2]"), status: 404, pb: inferPB("nope", "", tensorPB{"input", "FP32", []int64{1, 2}, []float32{1, 2}, nil}), code: codes.NotFound, says: `"nope" is not found`},
		"unknown version":        {path: "/v2/models/fraud/versions/9/infer", body: askFor("input", "[1,2]", "FP32", "[1,2]"), status: 404, pb: inferPB("fraud", "9", tensorPB{"input", "FP32", []int64{1, 2}, []float32{1, 2}, nil}), code: codes.NotFound, says: `no version "9"`},
		"100 MB":                 {body: strings.Repeat(" ", 100<<20), status: 413, says: fmt.Sprint("more than ", huge)},
		"100 MB of binary":       {body: head + strings.Repeat("x", 100<<20), header: strconv.Itoa(len(head)), status: 413, says: fmt.Sprint("more than ", huge)},
		"100 MB message":         {pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{1, 2}, nil, make([]byte, 100<<20)}), code: codes.ResourceExhausted, says: "larger than max"},
		"good":                   {body: askFor("input", "[1,2]", "FP32", "[1,2]"), status: 200, pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{1, 2}, []float32{1, 2}, nil}), code: codes.OK},
		"NaN as a number":        {body: head + nan + nan, header: strconv.Itoa(len(head)), status: 200, pb: inferPB("fraud", "", tensorPB{"input", "FP32", []int64{1, 2}, nil, []byte(nan + nan)}), code: codes.OK, says: `"NaN"`},
	} {
		t.Run(name, func(t *testing.T) {
			if c.body != "" {
				before := r.counted()
				var header []string
				if c.header != "" {
					header = []string{headerLength, c.header}
				}
				status, body, _ := r.post(orElse(c.path, "/v2/models/fraud/infer"), c.body, header...)
				if status != c.status || !json.Valid([]byte(body)) || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), c.says) {
					t.Errorf("REST: %d %.300s, want %d …%s…", status, body, c.status, c.says)
				}
				if n := r.counted() - before; n != 1 {
					t.Errorf("REST: counted %d times", n)
				}
			}
			if c.pb != nil {
				before := r.counted()
				_, err := invoke(c.pb)
				if status.Code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("gRPC: %v, want %v …%s…", err, c.code, c.says)
				}
				if n := r.counted() - before; n != 1 && name != "100 MB message" { // which gRPC refuses before anybody sees it
					t.Errorf("gRPC: counted %d times", n)
				}
			}
		})
	}
	for _, p := range r.recorded(4) { // the good and the missing ones, in a record that is JSON
		if p["model"] != "fraud" {
			t.Errorf("record %v", p)
		}
	}
}

// counted is how many requests the server's counters know.
func (r *rig) counted() (n uint64) {
	for _, d := range *r.s.models.Load() {
		n += d.stats.success.Load() + d.stats.failure.Load()
	}
	return n + r.s.unknown.Load()
}

// TestSlowClients leaves a body unfinished: the caller is told, its goroutine
// ends, and others are answered meanwhile.
func TestSlowClients(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, route := range Routes(r.s) {
		mux.Handle(route.Pattern, route.Handler)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	limits := web.Limits{Header: 3 * time.Second, Body: 3 * time.Second, Write: time.Minute}
	go func() { done <- web.Serve(ctx, ln, mux, limits, time.Minute, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-done }()
	slow := func(text string) *bufio.Reader {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(c)
	}
	var waiting []*bufio.Reader
	for range 50 {
		waiting = append(waiting, slow("POST /v2/models/fraud/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"inputs\":["))
	}
	header := slow("POST /v2/models/fraud/infer HTTP/1.1\r\nHost:")
	res, err := http.Post("http://"+ln.Addr().String()+"/v2/models/fraud/infer", "application/json", strings.NewReader(askFor("input", "[1,2]", "FP32", "[1,2]")))
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("beside slow clients: %v %v", res, err)
	}
	res.Body.Close()
	for _, w := range waiting {
		res, err := http.ReadResponse(w, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(body), "too slowly") {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	if _, err := io.ReadAll(header); err != nil {
		t.Errorf("an unfinished header: %v", err) // the connection ends
	}
	if n := r.s.find("fraud").stats.failure.Load(); n != 50 {
		t.Errorf("%d of 50 counted", n)
	}
}

// TestBadModelFiles deploys what is no artefact: a folder elsewhere, a file that
// is a link to elsewhere, an ONNX file that asks for terabytes.
func TestBadModelFiles(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	other, err := os.OpenRoot(outside)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	digest, linked := artifact(t, other, 1), artifact(t, root, 2)
	file := filepath.Join(dir, linked, "model.json")
	if err := errors.Join(os.Rename(file, filepath.Join(outside, "model.json")), os.Symlink(filepath.Join(outside, "model.json"), file)); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	f := NewFollower(r.s, openRegistry(t), model.NewLibrary(root, nil))
	for _, path := range []string{filepath.Join("..", filepath.Base(outside), digest), filepath.Join(outside, digest), linked, "", "."} {
		if m, err := f.load(t.Context(), "m", DeployedVersion{"1", path}, Batching{}); err == nil {
			t.Errorf("%s: loaded %+v", path, m)
		} else if strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if m, err := NewFollower(r.s, openRegistry(t), model.NewLibrary(other, nil)).load(t.Context(), "m", DeployedVersion{"1", digest}, Batching{}); err != nil { // the control
		t.Errorf("the same artefact in its place: %+v %v", m, err)
	}
	var dims []byte
	for range 3 {
		dims = protowire.AppendVarint(protowire.AppendTag(dims, 1, protowire.VarintType), 1<<20)
	}
	bomb := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 8)
	bomb = appendMessage(bomb, 7, appendMessage(nil, 5, protowire.AppendVarint(protowire.AppendTag(dims, 2, protowire.VarintType), 1)))
	sig := *sum("1", 1, 1).Signature
	sig.Kind = model.ONNX
	_, err = model.Write(root, &model.Artifact{Signature: sig, Model: bomb, Golden: model.Golden{Features: 2, Outputs: 1, Inputs: []float32{1, 2}, Expected: []float32{1}}, Card: model.Card{Name: "m", Created: time.Unix(1, 0).UTC()}})
	if !errors.Is(err, onnx.ErrRefused) {
		t.Errorf("a bomb: %v", err)
	}
}
