package app

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/internal/web"
)

// waysOut are names that lead out of a folder in one system or another.
func waysOut(secret string) (out []string) {
	for _, up := range []string{"../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "%252e%252e%252f", "..\\", "..%5c", "..%c0%af", "..%ef%bc%8f", "....//", "..;/", "./../", "a/../../", "..%00/", "\x00../"} {
		out = append(out, strings.Repeat(up, 12)+strings.TrimPrefix(secret, "/"), up+"FORMAT", up+up+"admin.key")
	}
	return append(out, secret, "/"+secret, "//"+secret, "file://"+secret, "%2f"+strings.TrimPrefix(secret, "/"), "C:\\"+secret, "~/x", "/proc/self/environ", "/etc/passwd", "kedge/../../FORMAT", "kedge/%2e%2e/%2e%2e/FORMAT", "link/admin.key")
}

// TestTraversal: nothing outside of the folders of artefacts is read, written
// or removed by way of a name, nor through a link that lies in one.
func TestTraversal(t *testing.T) {
	p := newPrey(t)
	r := startApp(t, func(c *Config) { c.Auth.Enabled = true })
	admin := r.adminKey()
	if err := os.Symlink(r.cfg.DataDir, filepath.Join(r.cfg.DataDir, "mlflow", "artifacts", "link")); err != nil {
		if err = os.MkdirAll(filepath.Join(r.cfg.DataDir, "mlflow", "artifacts"), 0o755); err == nil {
			err = os.Symlink(r.cfg.DataDir, filepath.Join(r.cfg.DataDir, "mlflow", "artifacts", "link"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	before, sent := filesBeside(t, r.cfg.DataDir), 0
	shown := func(base string) (found []string) {
		for _, name := range waysOut(p.secret) {
			for _, way := range []string{
				"GET /api/2.0/mlflow-artifacts/artifacts/" + name, "GET /api/2.0/mlflow-artifacts/artifacts?path=" + name, "GET /api/2.0/mlflow/artifacts/list?run_id=x&path=" + name,
				"GET /assets/" + name, "GET /v2/models/" + name + "/ready", "GET /ns/default/" + name,
				"PUT /api/2.0/mlflow-artifacts/artifacts/" + name, "DELETE /api/2.0/mlflow-artifacts/artifacts/" + name,
			} {
				method, path, _ := strings.Cut(way, " ")
				text := rawRequest(t, base, method, path, admin, "prey-written")
				sent++
				if strings.Contains(text, secretText) || strings.Contains(text, admin) || strings.Contains(text, "root:x:0") || strings.HasPrefix(text, "HTTP/1.1 5") {
					found = append(found, way+": "+text[:min(len(text), 300)])
				}
			}
		}
		return found
	}
	for _, f := range shown(r.Addr()) {
		t.Error(f)
	}
	if after := filesBeside(t, r.cfg.DataDir); after != before {
		t.Errorf("files outside of the folder of artefacts were changed:\n%s\n%s", before, after)
	}
	if text, err := os.ReadFile(p.secret); err != nil || !strings.Contains(string(text), secretText) {
		t.Errorf("the prey was changed: %q, %v", text, err)
	}
	t.Logf("%d names and ways", sent)

	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { // joins what the client says
		name, err := url.PathUnescape(q.URL.Path)
		if err != nil || q.Method != "GET" {
			return
		}
		name = strings.TrimPrefix(name, "/api/2.0/mlflow-artifacts/artifacts/")
		if b, err := os.ReadFile(filepath.Join(r.cfg.DataDir, "mlflow", "artifacts", name)); err == nil {
			_, _ = w.Write(b)
		}
	}))
	defer open.Close()
	if found := shown(strings.TrimPrefix(open.URL, "http://")); len(found) < 5 {
		t.Errorf("the attacks are blind: a handler that joins names shows %d: %v", len(found), found)
	}
}

// rawRequest writes a request as it stands: Go's client would clean its path.
func rawRequest(t *testing.T, addr, method, path, key, body string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if method == "GET" {
		body = ""
	}
	path = strings.NewReplacer(" ", "%20", "\x00", "%00").Replace(path)
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", method, path, addr, key, len(body), body)
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return string(b)
}

// filesBeside lists what lies in a data directory beside artefacts and what
// changes by itself, with the sizes of what does not.
func filesBeside(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		top, _, _ := strings.Cut(path, "/")
		if err != nil || top == "store" || top == "broker" || strings.HasPrefix(path, "mlflow/artifacts/") {
			return err
		}
		if info, err := d.Info(); err == nil && !d.IsDir() && top != "mlflow" {
			fmt.Fprintln(&out, path, info.Size())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// tarOf is an archive with the given entries behind a backup's manifest.
func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	manifest := `{"format":1,"data_format":1,"tables":1}`
	for _, h := range append([]tar.Header{{Name: manifestName, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(manifest))}}, entries...) {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		text := manifest
		if h.Name != manifestName {
			text = strings.Repeat("x", int(h.Size))
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, text[:h.Size]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestArchivesThatLeadOut: a backup's entries stay in the new data directory
// (zip-slip), links and devices are none of a backup's, and no entry is larger
// than the archive.
func TestArchivesThatLeadOut(t *testing.T) {
	top := t.TempDir()
	extracts := func(b []byte, to string) { // what an unpacker does that trusts names
		in := tar.NewReader(bytes.NewReader(b))
		for h, err := in.Next(); err == nil; h, err = in.Next() {
			name := filepath.Join(to, strings.TrimPrefix(h.Name, dataPrefix))
			if strings.HasPrefix(name, top) && h.Typeflag == tar.TypeReg {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(in)
				_ = os.WriteFile(name, text, 0o600) // some names are no file's
			}
		}
	}
	escaped := func() bool { _, err := os.Stat(filepath.Join(top, "escaped")); return err == nil }
	var names []string
	for _, up := range []string{"../escaped", "../../escaped", "a/../../escaped", "./../escaped", "a/./../../escaped", "//../escaped", "..\\escaped", filepath.Join(top, "escaped")} {
		names = append(names, dataPrefix+up, up, dataPrefix+"/"+up, dataPrefix+"broker/"+up)
	}
	seen := 0
	for i, name := range names {
		b := tarOf(t, tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: 1})
		dir := filepath.Join(top, fmt.Sprintf("naive%d", i), "data")
		extracts(b, dir)
		if escaped() || func() bool {
			_, err := os.Stat(filepath.Join(top, fmt.Sprintf("naive%d", i), "escaped"))
			return err == nil
		}() {
			seen++
		}
		_ = os.Remove(filepath.Join(top, "escaped")) // may not be there
		into := filepath.Join(top, fmt.Sprintf("safe%d", i), "data")
		if _, err := Restore(t.Context(), Config{DataDir: into}, bytes.NewReader(b)); err == nil {
			t.Errorf("%q: was restored", name)
		}
		if _, err := os.Stat(filepath.Join(top, fmt.Sprintf("safe%d", i), "escaped")); err == nil || escaped() {
			t.Errorf("%q: leads out", name)
		}
	}
	if seen < 5 {
		t.Errorf("the attacks are blind: an unpacker that trusts names is led out by %d", seen)
	}
	for name, h := range map[string]tar.Header{
		"a link out":      {Name: dataPrefix + "l", Typeflag: tar.TypeSymlink, Linkname: "../../escaped"},
		"a hard link out": {Name: dataPrefix + "l", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
		"a device":        {Name: dataPrefix + "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5},
		"a pipe":          {Name: dataPrefix + "p", Typeflag: tar.TypeFifo},
	} {
		if _, err := Restore(t.Context(), Config{DataDir: filepath.Join(t.TempDir(), "d")}, bytes.NewReader(tarOf(t, h))); err == nil {
			t.Errorf("%s: was restored", name)
		}
	}
	b := sparseTar(t, dataPrefix+"bomb", 1<<40)
	in := tar.NewReader(bytes.NewReader(b))
	for range 2 {
		if h, err := in.Next(); err != nil || h.Name == dataPrefix+"bomb" && h.Size != 1<<40 {
			t.Fatalf("the bomb is none: %+v, %v", h, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "d")
	if _, err := Restore(t.Context(), Config{DataDir: dir}, bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "bomb") {
		t.Errorf("an entry of 1 TiB in an archive of %d bytes: %v", len(b), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "bomb")); err == nil && info.Size() > 1<<20 {
		t.Errorf("%d bytes of it were written", info.Size())
	}
}

// sparseTar is an archive of one entry that claims to be of size bytes and has
// none of them: GNU's sparse format 1.0 by PAX records.
func sparseTar(t *testing.T, name string, size int64) []byte {
	t.Helper()
	b := tarOf(t)
	b = b[:len(b)-1024] // the two empty blocks that end it
	var w bytes.Buffer
	one := tar.NewWriter(&w)
	record := func(k, v string) string {
		for n := len(k) + len(v) + 3; ; n++ {
			if s := fmt.Sprintf("%d %s=%s\n", n, k, v); len(s) == n {
				return s
			}
		}
	}
	pax := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", name) + record("GNU.sparse.realsize", fmt.Sprint(size))
	spans := fmt.Sprintf("1\n%d\n0\n", size) // one span, empty, at the end
	for _, part := range []struct {
		kind byte
		body string
	}{{'x', pax}, {'0', spans + strings.Repeat("\x00", 512-len(spans))}} {
		w.Write(header(part.kind, int64(len(part.body))))
		w.WriteString(part.body)
		w.Write(make([]byte, (512-len(part.body)%512)%512))
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	return append(b, w.Bytes()...)
}

// header is one block of a tar archive, which the library would not write so.
func header(kind byte, size int64) []byte {
	h := make([]byte, 512)
	copy(h, "entry")
	copy(h[100:], "0000600\x00")
	copy(h[108:], "0000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", size))
	copy(h[136:], "00000000000\x00        ")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// gzipBomb is n zeros, or of one line, packed.
func gzipBomb(t *testing.T, n int, line bool) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte{'\n'}, 1<<20)
	if line {
		chunk = bytes.Repeat([]byte{'x'}, 1<<20)
	}
	for range n >> 20 {
		if _, err := z.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestBombs: what is small on the wire and large in memory is given up at its
// limit.
func TestBombs(t *testing.T) {
	r := startApp(t, func(c *Config) { c.HTTP.MaxEvents = 4 << 20 })
	const size = 128 << 20
	for _, line := range []bool{false, true} {
		bomb := gzipBomb(t, size, line)
		if len(bomb) > size/500 {
			t.Fatalf("the bomb is none: %d bytes for %d", len(bomb), size)
		}
		for _, path := range []string{"/v1/events", "/push", "/get-online-features", "/v1/query", "/v2/models/m/infer", "/v1/historical-features", "/v1/imports/0/events?from=0", "/api/2.0/mlflow/runs/create"} {
			before := allocated()
			status, text := r.call("POST", path, string(bomb), "Content-Encoding", "gzip", "Content-Type", "application/json")
			if grown := allocated() - before; status < 400 || status >= 500 || grown > size/2 {
				t.Errorf("%s, one line %v: %d %.200s; %d bytes were allocated", path, line, status, text, grown)
			}
		}
	}
	before := allocated() // an open handler: reads it all
	z, err := gzip.NewReader(bytes.NewReader(gzipBomb(t, size, true)))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || len(b) != size || allocated()-before < size {
		t.Errorf("the attack is blind: %d bytes, %v", len(b), err)
	}
}

// allocated is how much was ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestSlowClients: a client that sends a byte at a time, or none at all, is cut
// off by every server; one without limits keeps it.
func TestSlowClients(t *testing.T) {
	const limit = time.Second
	r := startApp(t, func(c *Config) {
		c.HTTP.HeaderTimeout, c.HTTP.BodyTimeout, c.HTTP.QueryTimeout = Duration(limit), Duration(limit), Duration(limit)
		c.ClickHouse.Listen, c.ClickHouse.Share, c.ClickHouse.SharePassword = "127.0.0.1:0", "127.0.0.1:0", "x"
	})
	servers := map[string]string{"http": r.Addr(), "feast": r.features.feast.Addr().String(), "admin": r.admin.Addr().String(), "grpc": r.serving.port.Addr().String(), "kafka": r.brokers[0]}
	for _, p := range r.ports {
		servers[p.name] = p.ln.Addr().String()
	}
	if len(servers) != 7 {
		t.Fatalf("not every server is attacked: %v", servers)
	}
	open, err := web.Listen("open", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) })}
	go func() { _ = srv.Serve(open) }() // ends with Close
	defer srv.Close()

	type held struct {
		name string
		slow *slowClient
	}
	var all []held
	for name, addr := range servers {
		for _, start := range []string{"", "G", "POST / HTTP/1.1\r\nHost: " + addr + "\r\nX: ", "POST /v1/query HTTP/1.1\r\nHost: " + addr + "\r\nContent-Length: 100000\r\n\r\n", "POST /?query=SELECT+1 HTTP/1.1\r\nHost: " + addr + "\r\nContent-Length: 100000\r\n\r\n"} {
			all = append(all, held{fmt.Sprintf("%s, %q", name, start[:min(len(start), 20)]), newSlowClient(t, addr, start)})
		}
	}
	kept := newSlowClient(t, open.Addr().String(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
	for _, h := range all {
		testenv.Eventually(t, time.Minute, func() error {
			if !h.slow.closed() {
				return fmt.Errorf("%s: is still connected", h.name)
			}
			return nil
		})
	}
	if kept.closed() {
		t.Error("the attack is blind: a server without limits has closed too")
	}
}

// slowClient sends a byte now and then until it is cut off.
type slowClient struct {
	conn net.Conn
	done chan struct{}
}

func newSlowClient(t *testing.T, addr, start string) *slowClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &slowClient{c, make(chan struct{})}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, start); err != nil {
		t.Fatal(err)
	}
	go func() { // drips
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.done:
				return
			case <-tick.C:
				if start != "" {
					_, _ = c.Write([]byte{'x'}) // the reader notices
				}
			}
		}
	}()
	go func() {
		_, _ = io.Copy(io.Discard, c) // ends when it is cut off
		close(s.done)
	}()
	return s
}

func (s *slowClient) closed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}
