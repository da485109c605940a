package app

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// erasedSubject is who is erased, in no other text.
const erasedSubject = "canary-subject-7391"

// found are the files below a folder whose bytes, as they are or decompressed,
// have the subject, by what they belong to.
func (r *running) found(t *testing.T) map[string]int {
	t.Helper()
	tables := map[string]string{} // folder → table
	err := r.store.Embedded().Query(t.Context(), chdb.Statement{SQL: "SELECT name, arrayJoin(data_paths) FROM system.tables WHERE database = 'kedge'"}, "TabSeparated", func(b []byte) error {
		for line := range strings.Lines(string(b)) {
			if name, path, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
				tables[filepath.Base(strings.TrimSuffix(path, "/"))] = name
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	cold := r.cfg.ClickHouse.Volumes["cold"]
	look := func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) || err == nil && d.IsDir() { // parts come and go
			return nil
		}
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		if !bytes.Contains(raw, []byte(erasedSubject)) && !bytes.Contains(decompressed(raw), []byte(erasedSubject)) {
			return nil
		}
		rel, _ := filepath.Rel(r.cfg.DataDir, path)
		owner := strings.Join(strings.Split(rel, string(filepath.Separator))[:1], "/")
		for folder, name := range tables {
			if strings.Contains(path, folder) {
				owner = "table " + strings.TrimRight(name, "0123456789abcdef_")
				if strings.HasPrefix(path, cold) {
					out["cold "+owner]++
				}
			}
		}
		if at := strings.Index(rel, "partitions/"); at >= 0 {
			owner = "log " + strings.Split(rel[at+len("partitions/"):], "/")[0]
		}
		out[owner]++
		return nil
	}
	if err := errors.Join(filepath.WalkDir(r.cfg.DataDir, look), filepath.WalkDir(cold, look)); err != nil {
		t.Fatal(err)
	}
	return out
}

// decompressed is all that a file of the engine holds in compressed frames
// (checksum, method, sizes, data); what is none is left out. Logs of the broker
// are read as batches by their producers' codecs.
func decompressed(raw []byte) []byte {
	var out []byte
	for at := 0; at+25 <= len(raw); {
		size := int(binary.LittleEndian.Uint32(raw[at+17:]))
		if size < 9 || at+16+size > len(raw) {
			break
		}
		if plain, err := io.ReadAll(compress.NewReader(bytes.NewReader(raw[at : at+16+size]))); err == nil || len(plain) > 0 {
			out = append(out, plain...)
		}
		at += 16 + size
	}
	codecs := kgo.DefaultDecompressor()
	for at := 0; at+61 <= len(raw); {
		size := int(binary.BigEndian.Uint32(raw[at+8:]))
		if size < 49 || at+12+size > len(raw) || raw[at+16] != 2 {
			break
		}
		codec := kgo.CompressionCodecType(binary.BigEndian.Uint16(raw[at+21:]) & 7)
		if plain, err := codecs.Decompress(raw[at+61:at+12+size], codec); err == nil {
			out = append(out, plain...)
		}
		at += 12 + size
	}
	return out
}

// TestErasure: what is planted about somebody in every store is found there
// first; then it is erased, and neither found nor let in again, while others'
// rows stay and the ledger still adds up.
func TestErasure(t *testing.T) {
	cold := t.TempDir()
	r := startApp(t, func(c *Config) {
		c.Features.Served.Share, c.ClickHouse.Volumes = 1, map[string]string{"cold": cold}
	})
	at := time.Now().UTC().Add(-time.Minute).Format(time.RFC3339)
	events := func(who string) string {
		return fmt.Sprintf(`{"view":"person","key":{"person_id":%[1]q},"event_time":%[2]q,"values":{"age":41}}
{"view":"visit","key":{"person_id":%[1]q,"shop":"s1"},"event_time":%[2]q,"values":{"paid":7.5}}
{"view":"order","key":{"order_id":"o-%[3]d"},"event_time":%[2]q,"values":{"person_id":%[1]q,"sum":3}}
{"model":"churn","version":"1","id":"p-%[3]d","key":{"person_id":%[1]q},"event_time":%[2]q,"inputs":{"age":41},"output":{"score":0.5}}
{"model":"churn","prediction_id":"p-%[3]d","event_time":%[2]q,"label":1}
{"model":"churn","key":{"person_id":%[1]q},"event_time":%[2]q,"label":0}
{"view":"person","key":{"person_id":%[1]q},"event_time":%[2]q,"values":{"age":"no number"}}
`, who, at, len(who))
	}
	send := func(who string) {
		t.Helper()
		if status, text := r.call("POST", "/v1/events", events(who), "Content-Type", "application/x-ndjson"); status != 200 {
			t.Fatalf("send: %d %s", status, text)
		}
	}
	online := func(who string) string {
		_, text := r.call("POST", "/get-online-features", fmt.Sprintf(`{"features":["person:age"],"entities":{"person_id":[%q]}}`, who))
		return text
	}
	ask := func(body string) string {
		_, text := r.call("POST", "/v1/query", body)
		return text
	}
	for _, path := range []string{"registered-models/create", "model-versions/create"} {
		if status, text := r.call("POST", "/api/2.0/mlflow/"+path, `{"name":"churn_model","source":"file:///elsewhere"}`); status != 200 {
			t.Fatalf("%s: %d %s", path, status, text)
		}
	}
	send(erasedSubject)
	send("somebody-else")
	plantWords(t, r, erasedSubject)
	for _, nobody := range []string{`{"person_id":""}`, `{"person_id":" "}`, `{"":"x"}`, `{"person_id":"x","zone":""}`} {
		if status, text := r.call("POST", "/v1/erasures", `{"entity":`+nobody+`}`); status != 400 || !strings.Contains(text, "say something") {
			t.Errorf("erase %s: %d %s", nobody, status, text)
		}
	}
	testenv.Eventually(t, time.Minute, func() error {
		if text := online(erasedSubject); !strings.Contains(text, "41") {
			return fmt.Errorf("online: %s", text)
		}
		return nil
	})
	// Rows are moved to another volume, too: erasing reaches that. Those of an insert
	// that is under way while the retention changes move with a later merge.
	if err := r.awaitLogs(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]int{
		`{"kind":"Namespace","name":"default","spec":{"retention":{"volume":"warm","move_after":"1s"}}}`: 400, // there is none
		`{"kind":"Namespace","name":"default","spec":{"retention":{"volume":"cold","move_after":"1s"}}}`: 200,
	} {
		if status, text := r.call("POST", "/v1/definitions", body); status != want || want == 400 && !strings.Contains(text, "clickhouse.volumes") {
			t.Fatalf("%s: %d %s", body, status, text)
		}
	}
	want := []string{"cold table features", "cold table predictions", "cold table labels", "table features", "table predictions", "table labels", "table dead_letters",
		"table grids", "table verdicts", "table segment_verdicts", "table incidents", "table monitor_states", "log kedge.default.features-0", "log kedge.default.predictions-0", "log kedge.default.labels-0", "log kedge.default.served-0"}
	testenv.Eventually(t, time.Minute, func() error { // the test can see
		online(erasedSubject)
		there := r.found(t)
		for _, w := range want {
			if there[w] == 0 {
				return fmt.Errorf("%s does not have what was planted: %v", w, there)
			}
		}
		return nil
	})

	status, text := r.call("POST", "/v1/erasures", fmt.Sprintf(`{"entity":{"person_id":%q}}`, erasedSubject))
	var cert ErasureCertificate
	if err := json.Unmarshal([]byte(text), &cert); err != nil || status != 200 {
		t.Fatalf("erase: %d %s", status, text)
	}
	r.checkCertificate(t, cert, text)
	if there := r.found(t); len(there) > 0 {
		t.Errorf("after the certificate it is still in %v", there)
	}
	if strings.Contains(r.log.String(), erasedSubject) {
		t.Error("the log names who was erased")
	}
	if text := online(erasedSubject); strings.Contains(text, "41") {
		t.Errorf("online: %s", text)
	}
	for what, sql := range map[string]string{"grid": "SELECT count() FROM kedge.grids WHERE `column` = 'sum'", "verdict": "SELECT count() FROM kedge.verdicts WHERE `column` = 'sum' AND monitor = 'words'",
		"segment's verdict": "SELECT count() FROM kedge.segment_verdicts WHERE segment = 'shop=s1'", "incident": "SELECT count() FROM kedge.incidents WHERE id = 'of-sum'", "monitor's state": "SELECT count() FROM kedge.monitor_states WHERE monitor = 'others'"} {
		if err := r.store.Embedded().Query(t.Context(), chdb.Statement{SQL: sql}, "TabSeparated", func(b []byte) error {
			if strings.TrimSpace(string(b)) != "1" {
				t.Errorf("a %s that says nothing of who was erased is gone: %q", what, b)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if text := ask(`{"kind":"rows","view":"person"}`); !strings.Contains(text, "somebody-else") || strings.Contains(text, erasedSubject) {
		t.Errorf("rows: %s", text)
	}

	send(erasedSubject) // once more
	send("third")
	testenv.Eventually(t, time.Minute, func() error {
		if text := ask(`{"kind":"rows","view":"person"}`); !strings.Contains(text, "third") {
			return fmt.Errorf("rows: %s", text)
		}
		return r.awaitLogs(t.Context(), "default")
	})
	for name, text := range map[string]string{"rows": ask(`{"kind":"rows","view":"person"}`), "visits": ask(`{"kind":"rows","view":"visit"}`), "predictions": ask(`{"kind":"rows","model":"churn"}`), "dead letters": ask(`{"kind":"dead_letters"}`), "online": online(erasedSubject)} {
		if strings.Contains(text, erasedSubject) && name != "online" || name == "online" && strings.Contains(text, "41") {
			t.Errorf("%s has who was erased, who was sent once more: %s", name, text)
		}
	}
	if _, again := r.call("POST", "/v1/erasures", fmt.Sprintf(`{"entity":{"person_id":%q}}`, erasedSubject)); !strings.Contains(again, cert.ID) {
		t.Errorf("once more: %s", again)
	}
	if there := r.found(t); len(there) > 0 {
		t.Errorf("what was sent once more is in %v", there)
	}
	parts, _, err := r.store.AuditLedger(t.Context(), "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	refused := int64(0)
	for _, p := range parts {
		refused += p.Tombstoned
		if p.GapRows != 0 || p.DuplicateRows != 0 {
			t.Errorf("the ledger no longer adds up: %+v", p)
		}
	}
	if refused == 0 {
		t.Error("the ledger counts nobody as tombstoned")
	}
}

// plantWords stores what monitors know and say of somebody, each beside one that
// does not, in the forms in which they are stored: a category of a grid, a
// baseline as JSON, sentences, a segment, a page.
func plantWords(t *testing.T, r *running, who string) {
	t.Helper()
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Hour)
	var sub store.Subject
	testenv.Eventually(t, time.Minute, func() error {
		for _, sc := range r.store.Schemas() {
			if sc.Subject == "order" {
				sub = store.Subject{Kind: sc.Kind, TableID: sc.TableID}
				return nil
			}
		}
		return errors.New("the view order has no table")
	})
	grid := func(values ...string) *dist.Grid {
		counts := map[string]uint64{}
		for _, v := range values {
			counts[v] = 100
		}
		g, err := dist.CategoryGrid(counts, dist.GridConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	verdict := func(column, sentence string) store.Verdict {
		return store.Verdict{Namespace: "default", Monitor: "words", Subject: "order", Column: column, Detector: "tvd", Start: at, End: at.Add(time.Hour), P: 1, Adjusted: 1, Sentence: sentence}
	}
	incident := func(id, column, sentence string) store.Incident {
		return store.Incident{Namespace: "default", ID: id, Monitor: "words", Subject: "order", Column: column, Detector: "tvd", Opened: at, State: "open", Severity: "warning", Sentence: sentence}
	}
	moved := "moved: distance 0.3, above 0.1; most at " + who + ": 30.0 % of rows, was 1.0 %"
	states := func(monitor string, parts map[string]string) error {
		return r.store.SaveMonitorState(t.Context(), "default", monitor, parts, 1)
	}
	if err := errors.Join(
		r.store.SaveGrids(t.Context(), sub, []store.SummaryColumn{{Name: "person_id", Grid: grid(who, "x")}, {Name: "sum", Grid: grid("a", "b")}}, 1),
		r.store.SaveVerdicts(t.Context(), sub, []store.Verdict{verdict("person_id", "person_id "+moved), verdict("sum", "sum moved")}, 1),
		r.store.SaveSegmentVerdicts(t.Context(), []store.SegmentVerdict{{Verdict: verdict("sum", "sum moved"), Segment: "shop=s1"}, {Verdict: verdict("sum", "sum of person_id="+who+" moved"), Segment: "person_id=" + who}}, 1),
		r.store.SaveIncidents(t.Context(), []store.Incident{incident("of-person", "person_id", "person_id "+moved), incident("of-sum", "sum", "sum moved"), incident("of-segment", "sum [person_id="+who+"]", "sum moved")}, 1),
		states("words", map[string]string{"baseline/person_id": `{"grid":{"categories":["` + who + `","x"]}}`}),
		states("open", map[string]string{"state": `{"open":{"person_id":{"Sentence":"all 9 values are ` + who + `"}}}`}),
		states("report:0123456789abcdef0123456789abcdef", map[string]string{"page": "<td>" + who + "</td>"}),
		states("others", map[string]string{"state": `{"open":{}}`}),
	); err != nil {
		t.Fatal(err)
	}
}

// checkCertificate: it says what was there and is there, names nobody, and its
// digests hold.
func (r *running) checkCertificate(t *testing.T, cert ErasureCertificate, text string) {
	t.Helper()
	if strings.Contains(text, erasedSubject) {
		t.Error("the certificate names who was erased")
	}
	before := map[string]int64{}
	for _, f := range cert.Tables {
		before[strings.TrimRight(f.Table, "0123456789abcdef_")] += f.Before
		if f.After != 0 {
			t.Errorf("%+v: something is left", f)
		}
	}
	for _, table := range []string{"features", "predictions", "labels"} {
		if before[table] == 0 {
			t.Errorf("the certificate knows nothing of %s: %v", table, slices.Sorted(maps.Keys(before)))
		}
	}
	if before["dead_letters"]+before["dead_letter"] == 0 || len(cert.Logs) != 4 || len(cert.Retrain) != 1 || len(cert.Views) != 2 {
		t.Errorf("certificate: %s", text)
	}
	sum, mac := cert.SHA256, cert.MAC
	if err := cert.seal([]byte(r.cfg.Erasure.Key)); err != nil || cert.SHA256 != sum || cert.MAC != mac {
		t.Errorf("the certificate's digests do not hold: %v", err)
	}
	cert.Tables[0].After++
	if err := cert.seal([]byte(r.cfg.Erasure.Key)); err != nil || cert.SHA256 == sum || cert.MAC == mac {
		t.Errorf("an edit is not seen: %v", err)
	}
}
