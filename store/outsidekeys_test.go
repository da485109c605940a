package store_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// signed reports whether a request has the signature (AWS Signature Version 4, as
// its specification says) of a secret key.
func signed(r *http.Request, access, secret string) bool {
	auth := strings.NewReplacer("AWS4-HMAC-SHA256 ", "", " ", "").Replace(r.Header.Get("Authorization"))
	parts := map[string]string{}
	for p := range strings.SplitSeq(auth, ",") {
		name, value, _ := strings.Cut(p, "=")
		parts[name] = value
	}
	who, scope, _ := strings.Cut(parts["Credential"], "/")
	if who != access || strings.Count(scope, "/") != 3 {
		return false
	}
	var headers strings.Builder
	for name := range strings.SplitSeq(parts["SignedHeaders"], ";") {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.TrimSpace(value))
	}
	var query []string
	for name, values := range r.URL.Query() {
		for _, v := range values {
			query = append(query, strings.ReplaceAll(url.QueryEscape(name)+"="+url.QueryEscape(v), "+", "%20"))
		}
	}
	slices.Sort(query)
	canonical := strings.Join([]string{r.Method, r.URL.EscapedPath(), strings.Join(query, "&"), headers.String(), parts["SignedHeaders"], r.Header.Get("X-Amz-Content-Sha256")}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	key := []byte("AWS4" + secret)
	mac := func(text string) {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		key = h.Sum(nil)
	}
	for p := range strings.SplitSeq(scope, "/") {
		mac(p)
	}
	mac(strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hex.EncodeToString(sum[:])}, "\n"))
	return hex.EncodeToString(key) == parts["Signature"]
}

// closedObjects lets through who signs with the keys alone, and counts both.
func closedObjects(t *testing.T, dir, access, secret string) (address string, let, refused *atomic.Int64) {
	open, err := url.Parse(objects(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	let, refused = &atomic.Int64{}, &atomic.Int64{}
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !signed(r, access, secret) {
			refused.Add(1)
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>`)
			return
		}
		let.Add(1)
		again := r.Clone(r.Context())
		again.RequestURI, again.URL.Scheme, again.URL.Host, again.Host = "", open.Scheme, open.Host, open.Host
		again.Header.Del("Authorization")
		res, err := http.DefaultTransport.RoundTrip(again)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		for name, values := range res.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(res.StatusCode)
		var body bytes.Buffer
		_, _ = body.ReadFrom(res.Body)
		_, _ = w.Write(body.Bytes())
	}))
	t.Cleanup(inner.Close)
	return inner.URL + open.Path, let, refused
}

// holding are the files of a folder in which a text is.
func holding(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOutsideKeys reads objects that only who has the keys may read: with them;
// without them, and with wrong ones, it is said what to do. The keys are in no
// definition and no file.
func TestOutsideKeys(t *testing.T) {
	const access, secret = "AKIAPLANTED", "planted-secret/+of objects"
	dir := t.TempDir()
	address, let, refused := closedObjects(t, dir, access, secret)
	table := func(name, path, access, secret string) store.OutsideTable {
		return store.OutsideTable{Name: name, Namespaces: []string{"*"}, S3: strings.Replace(address, "/visits/", path, 1), AccessKey: access, SecretKey: secret}
	}
	cfg := config(t)
	cfg.Outside = []store.OutsideTable{table("clicks", "/visits/", access, secret), table("wrong", "/wrong/", access, "another"), table("none", "/none/", "", "")}
	s := openAt(t, cfg)
	text(t, s, "INSERT INTO FUNCTION file("+quotedText(filepath.Join(dir, "a.parquet"))+", 'Parquet', 'user String, ts DateTime64(6, \\'UTC\\'), x Float64') VALUES ('u1', '2026-03-01 12:00:00', 1.5), ('u2', '2026-03-01 12:00:01', 2.5)")
	prepare(t, s, outsideView(1, event.FromSpec{Table: "clicks", EventTime: "ts"}))
	if got := text(t, s, "SELECT groupArray((k_user, v_x)) FROM (SELECT * FROM features_1 ORDER BY k_user)"); got != "[('u1',1.5),('u2',2.5)]" {
		t.Errorf("got %s", got)
	}
	if let.Load() == 0 || refused.Load() != 0 {
		t.Errorf("%d requests were let through, %d refused", let.Load(), refused.Load())
	}
	for i, name := range []string{"wrong", "none"} {
		before := refused.Load()
		err := s.Prepare(t.Context(), []*event.Schema{outsideView(uint64(2+i), event.FromSpec{Table: name, EventTime: "ts"})})
		if !errors.Is(err, store.ErrOutside) || !strings.Contains(err.Error(), "keys") || strings.Contains(err.Error(), secret) || refused.Load() == before {
			t.Errorf("%s: %v, %d refused", name, err, refused.Load())
		}
	}
	for _, where := range []string{"system.tables", "system.processes", "system.settings", "system.server_settings", "system.named_collections"} {
		if got := text(t, s, "SELECT toString(tuple(*)) FROM "+where); strings.Contains(got, secret) || strings.Contains(got, access) {
			t.Errorf("%s holds the keys", where)
		}
	}
	for _, what := range []string{access, secret} {
		if found := holding(t, cfg.DataDir, what); len(found) > 0 {
			t.Errorf("%q is in %v", what, found)
		}
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "control"), []byte("x"+secret+"y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(holding(t, cfg.DataDir, secret)) != 1 {
		t.Error("a planted key was not found")
	}
}
