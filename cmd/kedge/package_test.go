package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
)

// trainedElec runs a server with one registered model, elec@champion.
func trainedElec(t *testing.T, dir string, args ...string) (p *kedgeProcess, digest string) {
	t.Helper()
	p = startKedge(t, dir, args...)
	elecHead(t, p, 4000)
	r := p.runOf(p.must("train", "-f", elecJob(t, "  backend: linear\n  register: {alias: champion}\n")))
	if r.Version != "1" {
		t.Fatalf("%+v", r)
	}
	return p, r.Artifact
}

// golden reads the golden rows of an artefact's folder.
func golden(t *testing.T, dir string) *model.Golden {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "golden.bin"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := model.DecodeGolden(b)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// answersGolden asks a served model for its golden rows over HTTP.
func answersGolden(base, name string, g *model.Golden) error {
	data, err := json.Marshal(g.Inputs)
	if err != nil {
		return err
	}
	body := fmt.Sprintf(`{"inputs":[{"name":"input","shape":[%d,%d],"datatype":"FP32","data":%s}]}`, g.Rows(), g.Features, data)
	res, err := http.Post(base+"/v2/models/"+name+"/infer", "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	var answer struct{ Outputs []struct{ Data []float32 } }
	if err := json.Unmarshal(text, &answer); res.StatusCode != 200 || err != nil || len(answer.Outputs) == 0 {
		return fmt.Errorf("%d %.300s %v", res.StatusCode, text, err)
	}
	_, err = g.Replay(func(out, _ []float32) error { copy(out, answer.Outputs[0].Data); return nil })
	return err
}

// blob reads a blob of an image layout by its digest.
func blob(t *testing.T, oci, digest string) []byte {
	t.Helper()
	algorithm, hex, _ := strings.Cut(digest, ":")
	b, err := os.ReadFile(filepath.Join(oci, "blobs", algorithm, hex))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type ociDescriptor struct{ Digest string }

// unpackImage lays out what an image holds and returns how it is run.
func unpackImage(t *testing.T, oci, root string) (argv, env []string) {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(oci, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Manifests []ociDescriptor }
	var manifest struct {
		Config ociDescriptor
		Layers []ociDescriptor
	}
	var image struct {
		Config struct{ Entrypoint, Env []string }
	}
	if err := json.Unmarshal(index, &list); err != nil || len(list.Manifests) != 1 {
		t.Fatalf("%v %s", err, index)
	}
	if err := errors.Join(json.Unmarshal(blob(t, oci, list.Manifests[0].Digest), &manifest), json.Unmarshal(blob(t, oci, manifest.Config.Digest), &image)); err != nil {
		t.Fatal(err)
	}
	for _, l := range manifest.Layers {
		z, err := gzip.NewReader(bytes.NewReader(blob(t, oci, l.Digest)))
		if err != nil {
			t.Fatal(err)
		}
		untar(t, z, root)
	}
	return image.Config.Entrypoint, image.Config.Env
}

func untar(t *testing.T, in io.Reader, root string) {
	t.Helper()
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, os.FileMode(h.Mode))
		} else {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, os.FileMode(h.Mode))
			}
		}
		if err == nil && os.Getuid() == 0 {
			err = os.Chown(path, h.Uid, h.Gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// runImage starts what an image starts, within its own root where the test may,
// and returns where it answers and what ends it.
func runImage(t *testing.T, root string, argv, env []string) (base string, stop func()) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(env, "KEDGE_TEST_IS_KEDGE=1", "KEDGE_HTTP_LISTEN=127.0.0.1:0", "KEDGE_KAFKA_LISTEN=127.0.0.1:0")
	if os.Getuid() == 0 {
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	} else {
		t.Log("not root: the image's paths are given by hand, and this machine's libraries are used")
		cmd.Path, cmd.Args = filepath.Join(root, argv[0]), []string{argv[0], "run", "--config", filepath.Join(root, "kedge/kedge.yaml"), "--data-dir", filepath.Join(root, "data")}
		cmd.Env = append(cmd.Env, "KEDGE_SERVING_BUNDLE="+filepath.Join(root, "kedge/model"))
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	var log strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var line struct{ Msg, HTTP string }
		fmt.Fprintln(&log, lines.Text())
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return line.HTTP, stop
		}
	}
	t.Fatalf("the image's process ended:\n%s", log.String())
	return "", nil
}

// TestModelPackage makes an image of a registered model and runs what is in it,
// in its own root: it answers the golden rows, it serves nothing else, and it
// does so again after a restart.
func TestModelPackage(t *testing.T) {
	data, dir := t.TempDir(), filepath.Join(t.TempDir(), "image")
	p, digest := trainedElec(t, data)
	out := p.must("model", "package", "elec@champion", "-o", dir)
	if !regexp.MustCompile(`image sha256:[0-9a-f]{64}`).MatchString(out) || !strings.Contains(out, digest) {
		t.Fatalf("%s", out)
	}
	if _, errs, status := p.kedge("model", "package", "elec@champion", "-o", dir); status == 0 || !strings.Contains(errs, "is there already") {
		t.Errorf("over an existing folder: status %d %s", status, errs)
	}
	if _, errs, status := p.kedge("model", "package", "elec@nobody", "-o", dir+"2"); status == 0 || !strings.Contains(errs, "unknown model, version or alias") {
		t.Errorf("an unknown alias: status %d %s", status, errs)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("refused packaging left %v (%v)", left, err)
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	argv, env := unpackImage(t, filepath.Join(dir, "oci"), root)
	g := golden(t, filepath.Join(data, "artifacts", digest))
	for range 2 { // the second start finds what the first registered
		base, stop := runImage(t, root, argv, env)
		testenv.Eventually(t, time.Minute, func() error { return answersGolden(base, "elec", g) })
		g.Expected[3] += 0.01 // the control: the comparison can fail
		if err := answersGolden(base, "elec", g); !errors.Is(err, model.ErrGolden) {
			t.Errorf("a changed golden row: %v", err)
		}
		g.Expected[3] -= 0.01
		stop()
	}
}
