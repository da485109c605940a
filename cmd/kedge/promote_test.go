package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// kept is everything that a promotion may change: definitions and artefacts.
func (p *kedgeProcess) kept(data string) string {
	p.t.Helper()
	_, definitions := get(p.t, p.http+"/v1/definitions")
	out := []string{definitions}
	err := fs.WalkDir(os.DirFS(filepath.Join(data, "artifacts")), ".", func(path string, e fs.DirEntry, err error) error {
		out = append(out, path)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// bundleFiles reads a bundle's tar file.
func bundleFiles(t *testing.T, bundle []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(bundle)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// resealed writes files as a bundle whose sums are right, whatever they hold.
func resealed(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	old := sha256.Sum256(files["artifact/SHA256SUMS"])
	var names []string
	for name := range files {
		if strings.HasPrefix(name, "artifact/") && name != "artifact/SHA256SUMS" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var sums bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(files[name]), strings.TrimPrefix(name, "artifact/"))
	}
	files["artifact/SHA256SUMS"] = sums.Bytes()
	digest := sha256.Sum256(sums.Bytes())
	files["bundle.json"] = bytes.ReplaceAll(files["bundle.json"], []byte(hex.EncodeToString(old[:])), []byte(hex.EncodeToString(digest[:])))
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, content := range files {
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}), write(w, content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

func (p *kedgeProcess) postBundle(bundle []byte) (int, string) {
	p.t.Helper()
	res, err := http.Post(p.http+"/v1/registry/models/elec/bundle?from=test", "application/x-tar", bytes.NewReader(bundle))
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestPromote moves a model to an installation that knows nothing of it, which
// then serves it, also from a bucket alone, and shows that what is wrong leaves no
// trace there.
func TestPromote(t *testing.T) {
	source, target := t.TempDir(), t.TempDir()
	p, digest := trainedElec(t, source)
	storage := startS3(t)
	q := startKedge(t, target)
	_, body := get(t, p.http+"/v1/registry/models/elec/bundle?version=champion")
	bundle := []byte(body)

	before := q.kept(target)
	refused := func(what string, bundle []byte, status int, says string) {
		t.Helper()
		if got, body := q.postBundle(bundle); got != status || !strings.Contains(body, says) {
			t.Errorf("%s: %d %s, want %d …%s…", what, got, body, status, says)
		}
		if after := q.kept(target); after != before {
			t.Errorf("%s left something behind:\n%s\nbefore:\n%s", what, after, before)
		}
	}
	mismatch := bundleFiles(t, bundle)
	g := golden(t, filepath.Join(source, "artifacts", digest))
	g.Expected[7] += 0.01
	mismatch["artifact/golden.bin"] = g.Encode()
	refused("a golden row that the model does not answer", resealed(t, mismatch), http.StatusBadRequest, "golden rows differ: row 7")
	flipped := bytes.Clone(bundle)
	flipped[bytes.Index(flipped, []byte(`"inputs"`))+3] ^= 1
	refused("a flipped byte", flipped, http.StatusBadRequest, "not those that SHA256SUMS lists")
	refused("half a bundle", bundle[:len(bundle)/2], http.StatusBadRequest, "bad bundle")
	refused("no bundle", []byte("hello"), http.StatusBadRequest, "bad bundle")
	foreign := bundleFiles(t, bundle)
	foreign["bundle.json"] = bytes.ReplaceAll(foreign["bundle.json"], []byte(`"kind": "FeatureView"`), []byte(`"kind": "Namespace"`))
	refused("a kind that no bundle has", resealed(t, foreign), http.StatusBadRequest, "a bundle carries no Namespace")

	other := filepath.Join(t.TempDir(), "view.yaml")
	if err := os.WriteFile(other, []byte("kind: FeatureView\nname: elec\nspec: {origin: declared, keys: [{name: market, type: Int64}], columns: [{name: nswprice, type: Float64}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	q.must("apply", "-f", other)
	before = q.kept(target)
	refused("a view that means something else here", bundle, http.StatusConflict, "FeatureView elec is defined otherwise here")
	q.must("delete", "FeatureView", "elec", "--why", "test")

	args := []string{"promote", "--from", p.http, "--to", q.http, "elec@champion", "--alias", "challenger", "--why", "seen in dev"}
	out, errs, status := runKedge(t, args...)
	if status != 0 || !strings.Contains(out, "defined FeatureView elec") || !strings.Contains(out, "version 1 of elec") {
		t.Fatalf("status %d %s%s", status, out, errs)
	}
	before = q.kept(target)
	if out, errs, status = runKedge(t, args...); status != 0 || !strings.Contains(out, "already") || q.kept(target) != before {
		t.Errorf("promoted again: status %d %s%s", status, out, errs)
	}
	m := q.ask(query.Request{Kind: "models"})[0]
	if got := fmt.Sprint(wordsOf(t, m, "version"), wordsOf(t, m, "aliases"), wordsOf(t, m, "artifact"), wordsOf(t, m, "why")); got != fmt.Sprintf("[1] [challenger] [%s] [seen in dev]", digest) {
		t.Errorf("the models over there: %s", got)
	}
	if log := q.must("audit", "list"); !strings.Contains(log, "RegisteredModel elec") {
		t.Errorf("the audit does not name the promotion:\n%s", log)
	}
	deployed := filepath.Join(t.TempDir(), "deployment.yaml")
	if err := os.WriteFile(deployed, fmt.Appendf(nil, "kind: Deployment\nname: elec\nspec:\n  versions: [{version: '1', artifact: %s}]\n  champion: '1'\n", digest), 0o600); err != nil {
		t.Fatal(err)
	}
	q.must("apply", "-f", deployed)
	g.Expected[7] -= 0.01
	testenv.Eventually(t, time.Minute, func() error { return answersGolden(q.http, "elec", g) })

	// Another machine has the data directory's topics, and artefacts in a bucket alone.
	testenv.Eventually(t, time.Minute, func() error { return storage.has(digest) })
	if err := errors.Join(q.stop(), os.RemoveAll(filepath.Join(target, "artifacts"))); err != nil {
		t.Fatal(err)
	}
	storage.away.Store(true)
	q = startKedge(t, target)
	testenv.Eventually(t, time.Minute, func() error {
		if s := q.status(); !strings.Contains(fmt.Sprint(s.Health), "artefact storage") {
			return fmt.Errorf("%+v", s.Health)
		}
		return nil
	})
	storage.away.Store(false)
	testenv.Eventually(t, time.Minute, func() error { return answersGolden(q.http, "elec", g) })
}

// TestPromoteWithKeys promotes between two installations that ask for keys: each
// sees its own alone, and only who may roll out over there brings a model in.
func TestPromoteWithKeys(t *testing.T) {
	t.Setenv("KEDGE_AUTH_ENABLED", "true")
	source, target := t.TempDir(), t.TempDir()
	p, q := startKedge(t, source), startKedge(t, target)
	admin := func(p *kedgeProcess, dir string, args ...string) string {
		t.Helper()
		return p.must(append([]string{"--key", "file:" + filepath.Join(dir, "admin.key")}, args...)...)
	}
	file := filepath.Join(t.TempDir(), "model.csv")
	rows := "x,y\n"
	for i := range 200 {
		rows += fmt.Sprintf("%d,%d\n", i%10, min(1, i%10/5))
	}
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	out := admin(p, source, "train", file, "--name", "made", "--label", "y", "--backend", "linear", "--artifacts", filepath.Join(source, "artifacts"))
	_, digest, _ := strings.Cut(out, "artefact ")
	spec := fmt.Sprintf("kind: RegisteredModel\nname: made\nspec:\n  versions: [{version: '1', artifact: %s, stage: candidate, created: 2026-01-01T00:00:00Z}]\n  aliases: {champion: '1'}\n", strings.Fields(digest)[0])
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	admin(p, source, "apply", "-f", file)
	key := func(p *kedgeProcess, dir, role string) string {
		t.Helper()
		out := admin(p, dir, "keys", "create", "--for", role, "--grant", "default:"+role)
		if at := strings.Index(out, "kedge_"); at >= 0 {
			return strings.Fields(out[at:])[0]
		}
		t.Fatalf("no key in %q", out)
		return ""
	}
	from, to := key(p, source, "scientist"), key(q, target, "operator")
	promote := func(from, to string) (string, int) {
		t.Helper()
		out, errs, status := runKedge(t, "promote", "--from", p.http, "--to", q.http, "--from-key", from, "--to-key", to, "made@champion")
		return out + errs, status
	}
	for name, c := range map[string][3]string{
		"without keys":              {"", "", "from " + p.http + ": this needs a credential"},
		"without one over there":    {from, "", "to " + q.http + ": this needs a credential"},
		"with the other side's":     {to, from, "from " + p.http + ": the credential is not accepted"},
		"as a viewer over there":    {from, key(q, target, "viewer"), "may not rollout:write"},
		"as a scientist over there": {from, key(q, target, "scientist"), "may not rollout:write"},
		"as a producer here":        {key(p, source, "producer"), to, "may not run:read"},
	} {
		if out, status := promote(c[0], c[1]); status == 0 || !strings.Contains(out, c[2]) {
			t.Errorf("%s: status %d, want %q in\n%s", name, status, c[2], out)
		}
	}
	if out := admin(q, target, "query", "models"); strings.Contains(out, "made") {
		t.Errorf("a refused promotion left a model:\n%s", out)
	}
	if out, status := promote(from, to); status != 0 || !strings.Contains(out, "version 1 of made") {
		t.Errorf("status %d\n%s", status, out)
	}
	if out := admin(q, target, "query", "models"); !strings.Contains(out, "key:operator") {
		t.Errorf("who brought it is not named:\n%s", out)
	}
}

// objects is a small S3 server that can go away.
type objects struct {
	backend gofakes3.Backend
	away    atomic.Bool
}

// startS3 runs one, which the processes started from here on use.
func startS3(t *testing.T) *objects {
	t.Helper()
	o := &objects{backend: s3mem.New()}
	if err := o.backend.CreateBucket("models"); err != nil {
		t.Fatal(err)
	}
	server := gofakes3.New(o.backend).Server()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	for name, value := range map[string]string{"ENDPOINT": h.URL, "BUCKET": "models", "REGION": "us-east-1", "ACCESS_KEY": "key", "SECRET_KEY": "secret"} {
		t.Setenv("KEDGE_ARTIFACTS_S3_"+name, value)
	}
	return o
}

func (o *objects) has(digest string) error {
	_, err := o.backend.HeadObject("models", digest+"/SHA256SUMS")
	return err
}

// TestTorturePromotionKilled kills the installation that a model is promoted to
// while the artefact is being written, or as soon as it is there. After the
// restart it knows all of the version or nothing, and promoting again makes it
// one version. Some kills have to have met it before it was registered.
func TestTorturePromotionKilled(t *testing.T) {
	torture(t)
	p, digest := trainedElec(t, t.TempDir())
	early := 0
	for round := range 6 {
		dir := t.TempDir()
		q := startKedge(t, dir)
		sign := []string{digest, ".writing-*"}[round%2]
		done := make(chan struct{})
		go func() {
			defer close(done)
			var out, errs bytes.Buffer
			run(t.Context(), []string{"promote", "--from", p.http, "--to", q.http, "elec@champion"}, strings.NewReader(""), &out, &errs)
		}()
		for {
			if found, _ := filepath.Glob(filepath.Join(dir, "artifacts", sign)); len(found) > 0 {
				break
			}
			select {
			case <-done: // the sign was too short to be seen
			default:
				continue
			}
			break
		}
		q.kill()
		<-done
		q = startKedge(t, dir)
		switch n := q.ask(query.Request{Kind: "models"})[0].Rows(); n {
		case 0:
			early++
		case 1:
			if status, body := get(t, q.http+"/v1/registry/models/elec/bundle?version=1"); status != http.StatusOK {
				t.Errorf("round %d: registered, but %d %s", round, status, body)
			}
		default:
			t.Errorf("round %d: %d versions", round, n)
		}
		if out, errs, status := runKedge(t, "promote", "--from", p.http, "--to", q.http, "elec@champion"); status != 0 {
			t.Errorf("round %d: again: status %d %s%s", round, status, out, errs)
		}
		if n := q.ask(query.Request{Kind: "models"})[0].Rows(); n != 1 {
			t.Errorf("round %d: %d versions after promoting again", round, n)
		}
		q.kill()
	}
	if t.Logf("%d of 6 kills came before the registration", early); early == 0 {
		t.Error("no kill met a promotion half way")
	}
}
