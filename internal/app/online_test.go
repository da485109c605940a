package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestSharedOnlineStore runs Kedge with its online rows in a Valkey: rows that
// are sent are answered, refused while the server is away, back from the store
// after it came up empty, and gone when their entity is deleted.
func TestSharedOnlineStore(t *testing.T) {
	v := testenv.StartValkey(t, "--requirepass", "hush")
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startApp(t, func(c *Config) {
		c.Features.Online.Addresses, c.Features.Online.PasswordFile = []string{v.Addr}, secret
	})
	const request = `{"features":["driver:rating"],"entities":{"driver_id":[7,8]}}`
	answers := func(status int, part string) func() error {
		return func() error {
			got, body := r.call("POST", "/get-online-features", request)
			if got != status || !strings.Contains(body, part) {
				return fmt.Errorf("%d %s, want %d with %s", got, body, status, part)
			}
			return nil
		}
	}
	send := func(line string) {
		t.Helper()
		if status, body := r.call("POST", "/v1/events", line); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	send(`{"view":"driver","key":{"driver_id":7},"event_time":"2026-01-01T00:00:00Z","values":{"rating":4.5}}`)
	there := answers(200, `{"values":[4.5,null],"statuses":["PRESENT","NOT_FOUND"],"event_timestamps":["2026-01-01T00:00:00Z"`)
	testenv.Eventually(t, time.Minute, there)
	v.Kill()
	testenv.Eventually(t, time.Minute, answers(503, "the shared online store does not answer"))
	v.Start()
	testenv.Eventually(t, time.Minute, there)
	if status, body := r.call("POST", "/v1/entities/delete", `{"entity":{"driver_id":"7"}}`); status != 200 && status != 202 {
		t.Fatalf("%d %s", status, body)
	}
	testenv.Eventually(t, time.Minute, answers(200, `"statuses":["NOT_FOUND","NOT_FOUND"]`))
}
