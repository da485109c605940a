package app

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
)

// TestProtobufOverHTTP sends what Python's protobuf library wrote as a stream of
// messages, then streams that are cut off, too long or no events.
func TestProtobufOverHTTP(t *testing.T) {
	b, err := os.ReadFile("../../event/testdata/events.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Cases []struct{ Kind, Hex string } }
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	var body []byte
	want := map[string]int64{}
	for _, c := range golden.Cases {
		record, err := hex.DecodeString(c.Hex)
		if err != nil {
			t.Fatal(err)
		}
		body = append(binary.AppendUvarint(body, uint64(len(record))), record...)
		want[c.Kind]++
	}
	door, client := newDoor(t)
	send := func(body []byte) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/v1/events", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/x-protobuf")
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r.WithContext(auth.WithCaller(t.Context(), auth.Local("default"))))
		return w.Code, w.Body.String()
	}
	if status, says := send(body); status != http.StatusOK {
		t.Fatalf("%d %s", status, says)
	}
	for _, k := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		if n := stored(t, client, k); n != want[k.String()] || n == 0 {
			t.Errorf("%s: %d stored, want %d", k, n, want[k.String()])
		}
	}
	for name, c := range map[string]struct {
		body   []byte
		status int
		says   string
	}{
		"cut off":   {body[:len(body)-3], http.StatusBadRequest, "unexpected EOF"},
		"no event":  {[]byte{2, 0x12, 0x7f}, http.StatusBadRequest, "Protobuf"},
		"too long":  {append(binary.AppendUvarint(nil, 2000), make([]byte, 2000)...), http.StatusBadRequest, "too_large"},
		"huge size": {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, http.StatusBadRequest, "unexpected EOF"},
	} {
		if status, says := send(c.body); status != c.status || !strings.Contains(says, c.says) {
			t.Errorf("%s: %d %s", name, status, says)
		}
	}
}
