package model

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/model/linear"
)

// example is a small logistic model over a number and a category.
func example(t testing.TB) *Artifact {
	t.Helper()
	m := &linear.Model{
		Version: linear.Format, Link: linear.Logistic, Intercept: []float64{0.25},
		Terms: []linear.Term{
			{Mean: 10, Scale: 2, Weights: []float64{1.5}, Missing: []float64{0}, Average: []float64{0}},
			{Categories: [][]float64{{0.5}, {-0.5}, {0}}, Missing: []float64{0.1}, Average: []float64{0}},
		},
	}
	file, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	amount, err1 := NumberReference([]float64{8, 9, 10, 11, math.NaN()})
	country, err2 := CategoryReference([]float32{0, 1, 1, 2, -1}, []string{"MT", "SE", "OTHER"})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	nan := float32(math.NaN())
	golden := Golden{Features: 2, Outputs: 1, Inputs: []float32{8, 0, nan, 1, 11, nan}}
	golden.Expected = make([]float32, 3)
	m.Predict(golden.Expected, golden.Inputs)
	return &Artifact{
		Signature: Signature{
			Format: FormatVersion, Kind: Linear, Task: Binary,
			Inputs: []Input{
				{Name: "amount", Type: "Float64", View: "user", ViewVersion: 3, Reference: amount},
				{Name: "country", Type: "String", Categories: []string{"MT", "SE", "OTHER"}, Other: true, Reference: country},
			},
			Outputs: []Output{{Name: "score", Width: 1, Classes: []string{"good", "bad"}}},
		},
		Model: file, Golden: golden,
		Card: Card{
			Name: "fraud", Backend: "linear", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Metrics:  map[string]map[string]float64{"test": {"auc": 0.9}},
			Warnings: []string{"column | leaks"},
		},
	}
}

func openRoot(t testing.TB) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func TestArtifactRoundTrip(t *testing.T) {
	root, dir := openRoot(t)
	a := example(t)
	digest, err := Write(root, a)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Write(root, a)
	if err != nil || again != digest {
		t.Fatalf("the same artefact got %s and %s: %v", digest, again, err)
	}
	b, err := Load(root, digest, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Predictor(DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, 1)
	p.Predict(out, []float32{8, 0})
	if out[0] != a.Golden.Expected[0] {
		t.Fatalf("predicts %v, want %v", out[0], a.Golden.Expected[0])
	}
	ref := b.Signature.Inputs[0].Reference
	if ref.Summary.Count != 4 || ref.Summary.Missing != 1 || ref.Grid.ID() != ref.Summary.GridID {
		t.Fatalf("reference came back as %+v", ref.Summary)
	}
	if list, err := List(root); err != nil || len(list) != 1 || list[0] != digest {
		t.Fatalf("listed %v, %v", list, err)
	}
	// Anyone can check the folder without Kedge.
	if tool, err := exec.LookPath("sha256sum"); err == nil {
		cmd := exec.Command(tool, "--strict", "-c", "SHA256SUMS")
		cmd.Dir = filepath.Join(dir, digest)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sha256sum: %v\n%s", err, out)
		}
	}
	card, _ := os.ReadFile(filepath.Join(dir, digest, "card.md"))
	if !bytes.Contains(card, []byte("| test | auc | 0.9 |")) {
		t.Fatalf("card.md:\n%s", card)
	}
}

// Any byte of any file flipped, cut off or appended is noticed.
func TestAnyDamageIsNoticed(t *testing.T) {
	root, dir := openRoot(t)
	digest, err := Write(root, example(t))
	if err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(filepath.Join(dir, digest))
	if len(entries) != 6 {
		t.Fatalf("%d files", len(entries))
	}
	for _, e := range entries {
		path := filepath.Join(dir, digest, e.Name())
		good, _ := os.ReadFile(path)
		for _, bad := range [][]byte{flip(good, 0), flip(good, len(good)/2), flip(good, len(good)-1), good[:len(good)-1], append(bytes.Clone(good), 'x'), nil} {
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(root, digest, DefaultLimits()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s damaged: got %v, want ErrCorrupt", e.Name(), err)
			}
		}
		os.Remove(path)
		if _, err := Load(root, digest, DefaultLimits()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s missing: got %v, want ErrCorrupt", e.Name(), err)
		}
		// Writing the artefact again mends it.
		if d, err := Write(root, example(t)); err != nil || d != digest {
			t.Fatalf("mend %s: %v", e.Name(), err)
		}
		if _, err := Load(root, digest, DefaultLimits()); err != nil {
			t.Fatalf("after mending %s: %v", e.Name(), err)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 0x20
	return b
}

// A folder that names files outside, by path or by link, is refused.
func TestNoWayOut(t *testing.T) {
	root, dir := openRoot(t)
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("{}"), 0o644)
	plant := func(t *testing.T, sums string, links map[string]string) string {
		digest := sum([]byte(sums))
		at := filepath.Join(dir, digest)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(at, "SHA256SUMS"), []byte(sums), 0o644)
		for name, target := range links {
			if err := os.Symlink(target, filepath.Join(at, name)); err != nil {
				t.Fatal(err)
			}
		}
		return digest
	}
	empty := sum([]byte("{}"))
	for name, digest := range map[string]string{
		"path":      plant(t, empty+"  ../../secret\n", nil),
		"absolute":  plant(t, empty+"  "+secret+"\n", nil),
		"link":      plant(t, empty+"  model.json\n", map[string]string{"model.json": secret}),
		"self":      plant(t, empty+"  SHA256SUMS\n", nil),
		"fifo":      plantFifo(t, dir, empty),
		"elsewhere": "../" + filepath.Base(dir),
	} {
		if _, err := Load(root, digest, DefaultLimits()); err == nil {
			t.Errorf("%s: loaded", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	os.Symlink(filepath.Dir(secret), filepath.Join(dir, strings.Repeat("a", 64)))
	if _, err := Load(root, strings.Repeat("a", 64), DefaultLimits()); err == nil {
		t.Error("a folder that is a link out was opened")
	}
}

func plantFifo(t *testing.T, dir, want string) string {
	sums := want + "  model.onnx\n"
	digest := sum([]byte(sums))
	os.MkdirAll(filepath.Join(dir, digest), 0o755)
	os.WriteFile(filepath.Join(dir, digest, "SHA256SUMS"), []byte(sums), 0o644)
	if err := syscall.Mkfifo(filepath.Join(dir, digest, "model.onnx"), 0o644); err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestGoldenMismatchIsNeverStored(t *testing.T) {
	root, dir := openRoot(t)
	a := example(t)
	a.Golden.Expected[1] += 2e-5
	if _, err := Write(root, a); !errors.Is(err, ErrGolden) {
		t.Fatalf("got %v, want ErrGolden", err)
	}
	a.Golden.Expected[1] -= 1.5e-5 // within tolerance
	if _, err := Write(root, a); err != nil {
		t.Fatal(err)
	}
	a = example(t)
	a.Golden.Features = 1
	if _, err := Write(root, a); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v, want ErrCorrupt", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("left behind: %v", entries)
	}
}

func TestLimitsHold(t *testing.T) {
	root, _ := openRoot(t)
	digest, err := Write(root, example(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, lim := range []Limits{{File: 100, Total: 1 << 20}, {File: 1 << 20, Total: 500}} {
		if _, err := Load(root, digest, lim); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%+v: got %v", lim, err)
		}
	}
	if _, err := Load(root, strings.Repeat("0", 64), DefaultLimits()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown digest: %v", err)
	}
}

// A disk that fills up in the middle of a write leaves nothing.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv("KEDGE_FULL_DISK"); dir != "" {
		writeOnFullDisk(t, dir)
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("the file size limit is set the Linux way")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), "KEDGE_FULL_DISK="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("file too large")) {
		t.Fatalf("%v\n%s", err, out)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Fatalf("left behind: %v", entries)
	}
}

func writeOnFullDisk(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 300, Max: 300}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Write(root, example(t))
	if err == nil {
		t.Fatal("written on a full disk")
	}
	os.Stdout.WriteString(err.Error() + "\n")
}

func TestEncoder(t *testing.T) {
	a := example(t)
	a.Signature.Inputs = append(a.Signature.Inputs, Input{Name: "grade", Type: "Int64", Categories: []string{"7", "9"}})
	e := NewEncoder(&a.Signature)
	i, ok := e.Index("country")
	if !ok || i != 1 || !e.Categorical(1) || e.Categorical(0) {
		t.Fatal("index")
	}
	check := func(what string, got float32, known bool, want float32, wantKnown bool) {
		t.Helper()
		if got != want && (got == got || want == want) || known != wantKnown {
			t.Errorf("%s: %v, %v", what, got, known)
		}
	}
	nan := Missing()
	v, k := e.Text(1, []byte("SE"))
	check("SE", v, k, 1, true)
	v, k = e.Text(1, []byte("XX"))
	check("XX is OTHER", v, k, 2, false)
	v, k = e.Number(2, 9)
	check("9", v, k, 1, true)
	v, k = e.Number(2, 8)
	check("8 is missing", v, k, nan, false)
	v, k = e.Number(2, math.NaN())
	check("NaN is missing", v, k, nan, true)
	v, k = e.Text(0, []byte("2.5"))
	check("2.5", v, k, 2.5, true)
	v, k = e.Text(0, []byte("many"))
	check("many", v, k, nan, false)
	text := []byte("SE")
	if n := testing.AllocsPerRun(10, func() { e.Text(1, text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSignatureFaults(t *testing.T) {
	for name, spoil := range map[string]func(*Signature){
		"format":    func(s *Signature) { s.Format = 9 },
		"kind":      func(s *Signature) { s.Kind = "pickle" },
		"task":      func(s *Signature) { s.Task = "ranking" },
		"no inputs": func(s *Signature) { s.Inputs = nil },
		"twice":     func(s *Signature) { s.Inputs[1].Name = "amount" },
		"category":  func(s *Signature) { s.Inputs[1].Categories[1] = "MT" },
		"width":     func(s *Signature) { s.Outputs[0].Width = 0 },
		"classes":   func(s *Signature) { s.Outputs[0].Classes = []string{"a"} },
		"threshold": func(s *Signature) { x := 1.5; s.Threshold = &x },
	} {
		s := example(t).Signature
		spoil(&s)
		if err := s.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeGolden(f *testing.F) {
	f.Add((&Golden{Features: 2, Outputs: 1, Inputs: make([]float32, 4), Expected: make([]float32, 2)}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := DecodeGolden(b)
		if err != nil {
			return
		}
		if !bytes.Equal(g.Encode(), b) {
			t.Fatal("encodes to other bytes")
		}
	})
}

// Whatever an attacker writes into the files, loading ends in an error or in a
// predictor that answers its golden rows.
func FuzzFromFiles(f *testing.F) {
	files, err := example(f).Files()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(files[modelFile], files[signatureFile], files[goldenFile], files[cardFile])
	lim := DefaultLimits()
	f.Fuzz(func(t *testing.T, m, s, g, c []byte) {
		a, err := FromFiles(map[string][]byte{modelFile: m, signatureFile: s, goldenFile: g, cardFile: c}, lim)
		if err != nil {
			return
		}
		if _, err := a.Predictor(lim); err != nil && a.Signature.Kind != ONNX {
			t.Fatal(err)
		}
		a.Card.Markdown()
	})
}
