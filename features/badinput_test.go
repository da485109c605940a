package features

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
)

// TestBadInput asks what nobody should. Every answer is a 4xx that Feast's
// client can raise, and nothing is stored half.
func TestBadInput(t *testing.T) {
	h := demoHouse(t)
	ids := strings.TrimSuffix(strings.Repeat("1001,", 10_001), ",")
	refs := strings.TrimSuffix(strings.Repeat(`"drv_fv:f64",`, 1_001), ",")
	read := func(features, entities string) string {
		return `{"features":[` + features + `],"entities":{` + entities + `}}`
	}
	for _, c := range []struct {
		name, path, body string
		status           int
		want             string
	}{
		{"unknown view", "/get-online-features", read(`"nope:f64"`, `"driver_id":[1]`), 404, "FeatureViewNotFoundException"},
		{"unknown feature", "/get-online-features", read(`"drv_fv:nope"`, `"driver_id":[1]`), 400, "Feature nope not found"},
		{"half a key", "/get-online-features", read(`"pair_fv:f64"`, `"driver_id":[1]`), 400, "['customer_id']"},
		{"ragged", "/get-online-features", read(`"pair_fv:f64"`, `"driver_id":[1,2],"customer_id":["a"]`), 400, "same columns"},
		{"null key", "/get-online-features", read(`"drv_fv:f64"`, `"driver_id":[1,null]`), 400, "null in row 1"},
		{"float key", "/get-online-features", read(`"drv_fv:f64"`, `"driver_id":[1.5]`), 400, "1.5"},
		{"NaN key", "/get-online-features", read(`"drv_fv:f64"`, `"driver_id":[NaN]`), 400, "NaN"},
		{"bool key", "/get-online-features", read(`"drv_fv:f64"`, `"driver_id":[true]`), 400, "true"},
		{"list key", "/get-online-features", read(`"drv_fv:f64"`, `"driver_id":[[1]]`), 400, "[1]"},
		{"number for text", "/get-online-features", read(`"pair_fv:f64"`, `"driver_id":[1],"customer_id":[7]`), 400, "customer_id in row 0"},
		{"key beyond int64", "/get-online-features", read(`"drv_fv:f64"`, `"driver_id":[9223372036854775808]`), 400, "9223372036854775808"},
		{"version", "/get-online-features", read(`"drv_fv@v2:f64"`, `"driver_id":[1]`), 400, "not supported"},
		{"too many rows", "/get-online-features", read(`"drv_fv:f64"`, `"driver_id":[`+ids+`]`), 400, "at most 10000"},
		{"too many features", "/get-online-features", read(refs, `"driver_id":[1]`), 400, "Duplicate"},
		{"huge body", "/get-online-features", `{"entities":"` + strings.Repeat("x", 17<<20) + `"}`, 413, "split the request"},
		{"deep body", "/get-online-features", `{"entities":{"driver_id":` + strings.Repeat("[", 10_000), 422, "json_invalid"},
		{"not UTF-8", "/get-online-features", "{\"entities\":{\"\xff\":[1]}}", 400, "parsing the body"},
		{"empty body", "/get-online-features", "", 422, "Field required"},
		{"a list", "/get-online-features", "[]", 422, "model_attributes_type"},
		{"flag", "/get-online-features", `{"entities":{"driver_id":[1]},"full_feature_names":"maybe"}`, 422, "bool_parsing"},
		{"ragged frame", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[1,2],"customer_id":["a"]}}`, 400, "same length"},
		{"scalar column", "/push", `{"push_source_name":"pair_push","df":{"driver_id":1}}`, 400, "not a list"},
		{"wrong type in the second row", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801,802],"customer_id":["a","a"],"event_timestamp":["2026-11-22T14:00:00Z","2026-11-22T14:00:00Z"],"f64":[1,"x"],"rating":[1,2]}}`, 400, "f64 in row 1"},
		{"null key pushed", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801,null],"customer_id":["a","a"],"event_timestamp":["2026-11-22T14:00:00Z","2026-11-22T14:00:00Z"],"f64":[1,2],"rating":[1,2]}}`, 400, "null in row 1"},
		{"NaN key pushed", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801,NaN],"customer_id":["a","a"],"event_timestamp":["2026-11-22T14:00:00Z","2026-11-22T14:00:00Z"],"f64":[1,2],"rating":[1,2]}}`, 400, "driver_id in row 1"},
		{"unknown source pushed", "/push", `{"push_source_name":"nope","df":{"driver_id":[801]}}`, 422, "PushSourceNotFoundException"},
		{"a column less", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801],"customer_id":["a"],"event_timestamp":["2026-11-22T14:00:00Z"],"f64":[1]}}`, 400, "rating"},
		{"no time", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801],"customer_id":["a"],"f64":[1],"rating":[1]}}`, 400, "event_timestamp"},
		{"not a time", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801,801],"customer_id":["a","b"],"event_timestamp":["2026-11-22T14:00:00Z","yesterday"],"f64":[1,2],"rating":[1,2]}}`, 400, "yesterday"},
		{"huge push", "/push", `{"push_source_name":"` + strings.Repeat("x", 65<<20) + `"}`, 413, "split the request"},
		{"unknown view written", "/write-to-online-store", `{"feature_view_name":"nope","df":{"driver_id":[801]}}`, 404, "FeastObjectNotFoundException"},
		{"wrong type written", "/write-to-online-store", `{"feature_view_name":"pair_fv","df":{"driver_id":[801,801],"customer_id":["a","b"],"event_timestamp":["2026-11-22T14:00:00Z","2026-11-22T14:00:00Z"],"f64":[1,"x"],"rating":[1,2]}}`, 400, "f64 in row 1"},
		{"no date", "/materialize", `{"start_ts":"yesterday","end_ts":"2026-11-22T14:00:00Z"}`, 400, "yesterday"},
		{"a row larger than a record", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801,802],"customer_id":["a","` + strings.Repeat("x", 5<<20) + `"],"event_timestamp":["2026-11-22T14:00:00Z","2026-11-22T14:00:00Z"],"f64":[1,1],"rating":[1,1]}}`, 413, "row 1 of view pair_fv"},
		{"far future", "/push", `{"push_source_name":"pair_push","df":{"driver_id":[801],"customer_id":["a"],"event_timestamp":["2200-11-22T14:00:00Z"],"f64":[1],"rating":[1]}}`, 400, "ahead of the server's clock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, _, body := h.ask(http.MethodPost, c.path, []byte(c.body))
			if status != c.status || !strings.Contains(body, c.want) {
				t.Fatalf("%d %.300s, want %d %q", status, body, c.status, c.want)
			}
		})
	}
	_, _, body := h.ask(http.MethodPost, "/get-online-features", []byte(read(`"pair_fv:f64"`, `"driver_id":[801,801],"customer_id":["a","b"]`)))
	if got := parseVectors(t, body).Results[2].Statuses; !reflect.DeepEqual(got, []string{"NOT_FOUND", "NOT_FOUND"}) {
		t.Fatalf("a refused push left a row behind: %s", body)
	}
}

// TestBigIntegersStayExact pushes what floats cannot hold, beside a null.
func TestBigIntegersStayExact(t *testing.T) {
	h := demoHouse(t)
	push := `{"push_source_name":"d3_push","df":{"driver_id":[1,2,3],"event_timestamp":["2026-11-22T15:00:00Z","2026-11-22T15:00:00Z","2026-11-22T15:00:00.123456Z"],"created":[null,null,null],
		"i64":[9007199254740993,null,-9223372036854775808],"f64":["NaN","-Infinity",1e300],"s":["a\u0000\"é","b",""],"ts":[-1,0,"1969-12-31T23:59:59Z"],"li":[[9007199254740993,null],[],null],"m":[{"b":1,"a":[1.0]},null,"x"]}}`
	if status, _, body := h.ask(http.MethodPost, "/push", []byte(push)); status != 200 {
		t.Fatalf("push: %d %s", status, body)
	}
	_, _, body := h.ask(http.MethodPost, "/get-online-features", []byte(`{"features":["d3:i64","d3:f64","d3:s","d3:ts","d3:li","d3:m"],"entities":{"driver_id":[1,2,3]}}`))
	want := []string{`[9007199254740993,null,-9223372036854775808]`, `["NaN","-Infinity",1e+300]`, `["a\u0000\"é","b",""]`, `[-1,0,-1]`, `[[9007199254740993,null],null,null]`, `[{"b":1,"a":[1.0]},null,"x"]`}
	for _, w := range want {
		if !strings.Contains(body, `{"values":`+w+`,"statuses"`) {
			t.Errorf("no %s in %s", w, body)
		}
	}
	if !strings.Contains(body, `"2026-11-22T15:00:00.123456Z"`) {
		t.Errorf("microseconds are lost: %s", body)
	}
}

// TestSlowClient sends half a request and goes away; others are answered
// meanwhile.
func TestSlowClient(t *testing.T) {
	h := demoHouse(t)
	conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
	must(t, err)
	_, err = conn.Write([]byte("POST /get-online-features HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"features\":"))
	must(t, err)
	if status, _, _ := h.ask(http.MethodGet, "/health", nil); status != 200 {
		t.Fatalf("health %d beside a slow client", status)
	}
	must(t, conn.Close())
}

// TestSlowBody: a body that does not arrive in time is answered, not waited for.
func TestSlowBody(t *testing.T) {
	h := demoHouse(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() {
		served <- web.Serve(ctx, ln, auth.Middleware(testNamespace, h.server), web.Limits{Body: 200 * time.Millisecond, Plain: PlainPaths()}, time.Minute, slog.New(slog.DiscardHandler))
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("POST /get-online-features HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"features\":"))
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(body), "FeastError") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	stop()
	must(t, <-served)
}

// TestLimitsAreSettable asks 10,000 × 1,000, which is too much unless it is
// allowed, and what each smaller limit refuses.
func TestLimitsAreSettable(t *testing.T) {
	h := openHouse(t, time.Time{})
	var columns []event.Field
	refs := make([]string, 1000)
	for i := range refs {
		columns = append(columns, fieldsOf(fmt.Sprintf("f%d Float64", i))...)
		refs[i] = fmt.Sprintf(`"wide:f%d"`, i)
	}
	h.view("wide", "0s", fieldsOf("k Int64"), columns)
	ask := func(rows, features int) (int, string) {
		body := fmt.Sprintf(`{"features":[%s],"entities":{"k":[%s]}}`, strings.Join(refs[:features], ","), strings.TrimSuffix(strings.Repeat("1,", rows), ","))
		status, _, text := h.ask(http.MethodPost, "/get-online-features", []byte(body))
		return status, text
	}
	expect := func(what string, lim Limits, rows, features, status int, want string) {
		t.Helper()
		h.server.cfg.Limits = lim.orDefault()
		if got, text := ask(rows, features); got != status || !strings.Contains(text, want) {
			t.Errorf("%s: %d %.200s, want %d %q", what, got, text, status, want)
		}
	}
	expect("10,000 x 1,000", Limits{}, 10_000, 1000, 400, "at most 2000000 values: split the request")
	expect("as much as is allowed", Limits{}, 2000, 1000, 200, `"NOT_FOUND"`)
	expect("rows", Limits{MaxEntities: 2}, 3, 1, 400, "at most 2: split the request")
	expect("rows within", Limits{MaxEntities: 3}, 3, 1, 200, `"NOT_FOUND"`)
	expect("features", Limits{MaxFeatures: 2}, 1, 3, 400, "at most 2: split the request")
	expect("values", Limits{MaxValues: 5}, 2, 3, 400, "at most 5 values: split the request")
	expect("body", Limits{MaxBody: 20}, 1, 1, 413, "larger than 20 bytes: split the request")
}

// TestTwoReadersAgree gives requests to both readers: what the fast one takes,
// the slow one reads the same.
func TestTwoReadersAgree(t *testing.T) {
	var fast request // as a server's, used again and again
	rapid.Check(t, func(t *rapid.T) {
		body := drawRequest(t)
		var slow request
		if !fast.parse(body) {
			if n, err := parseBody(body, readShape()); err == nil {
				slow.fromNode(n) // unusual, but right
			}
			return
		}
		n, err := parseBody(body, readShape())
		if err != nil {
			t.Fatalf("only the fast reader takes %s: %v", body, err)
		}
		slow.fromNode(n)
		if a, b := describe(&fast), describe(&slow); !reflect.DeepEqual(a, b) {
			t.Fatalf("%s\nfast %v\nslow %v", body, a, b)
		}
	})
}

func describe(r *request) []string {
	out := []string{string(r.service), fmt.Sprint(r.fullNames, r.versions, r.ages)}
	out = append(out, r.featureNames()...)
	for _, e := range r.entities {
		out = append(out, e.name)
		for i := range e.values {
			out = append(out, fmt.Sprint(e.values[i].kind, e.values[i].i, e.values[i].fits, string(e.values[i].appendJSON(nil))))
		}
	}
	return out
}

// drawRequest makes a request, then perhaps damages it.
func drawRequest(t *rapid.T) []byte {
	value := rapid.OneOf(rapid.Just("1"), rapid.Just("-7"), rapid.Just("1.5e3"), rapid.Just("01"), rapid.Just("null"), rapid.Just("true"), rapid.Just("NaN"),
		rapid.Just("9223372036854775808"), rapid.Just(`"a\u00e9\ud83d\ude00\n"`), rapid.Just(`[1,{"a":2}]`), rapid.Custom(func(t *rapid.T) string {
			b, _ := json.Marshal(rapid.String().Draw(t, "s"))
			return string(b)
		}))
	list := func(label string) string {
		return "[" + strings.Join(rapid.SliceOfN(value, 0, 4).Draw(t, label), ", ") + "]"
	}
	members := []string{`"entities":{"driver_id":` + list("ids") + `,"customer\u005fid" : ` + list("customers") + `}`}
	for _, m := range []string{`"features":["a:b","c\"d:e"]`, `"feature_service":"svc"`, `"feature_service":null`, `"full_feature_names":true`, `"other":{"x":[]}`, `"features":` + list("features"), `"entities":{}`} {
		if rapid.Bool().Draw(t, "member") {
			members = append(members, m)
		}
	}
	body := []byte(" {" + strings.Join(rapid.Permutation(members).Draw(t, "order"), ",\n") + "} ")
	if rapid.IntRange(0, 2).Draw(t, "damage") == 0 {
		at := rapid.IntRange(0, len(body)-1).Draw(t, "at")
		body = append(bytes.Clone(body[:at]), append([]byte(rapid.SampledFrom([]string{"", ",", "}", "\"", "\\", "\x00", "\xff", "1"}).Draw(t, "with")), body[min(at+rapid.IntRange(0, 2).Draw(t, "cut"), len(body)):]...)...)
	}
	return body
}

// FuzzReadRequest: no body makes either reader panic, and a body that the fast
// one takes is one that Python would take.
func FuzzReadRequest(f *testing.F) {
	f.Add([]byte(`{"features":["a:b"],"entities":{"k":[1,"x",null]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r request
		fast := r.parse(body)
		if _, err := parseBody(body, readShape()); fast && err != nil {
			t.Fatalf("only the fast reader takes %q: %v", body, err)
		}
	})
}
