package app

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// letterWays are the ways on which dead letters leave Kedge.
func letterWays() []asking {
	query := func(kind, media string) asking {
		return asking{kind + " " + media, "POST", "/v1/query", fmt.Sprintf(`{"kind":%q}`, kind), []string{"Accept", media}}
	}
	ways := []asking{{"route", "GET", "/v1/dead-letters", "", nil}, {"page", "GET", "/", "", nil}}
	for _, kind := range []string{"dead_letters", "dead_letter_log"} {
		for _, media := range []string{"application/json", "text/csv", "application/vnd.apache.arrow.stream"} {
			ways = append(ways, query(kind, media))
		}
	}
	return ways
}

// assertLetters holds one role to what the documents say of dead letters: whoever
// may ask questions sees how many there are, where and why; what they hold is
// for dead-letter:read. Something planted that nobody sees would prove nothing:
// the roles that may read it must.
func assertLetters(t *testing.T, r *running, key string, role auth.Role, planted string) {
	t.Helper()
	as := []string{"Authorization", "Bearer " + key}
	reads, asks := slices.Contains(auth.RolesWith(auth.DeadLetterRead), role), slices.Contains(auth.RolesWith(auth.QueryRead), role)
	for _, w := range letterWays() {
		may := asks
		if w.way == "route" {
			may = reads
		}
		status, text := r.call(w.method, w.path, w.body, append(slices.Clone(as), w.headers...)...)
		shows := strings.Contains(text, planted)
		if (status == http.StatusOK) != may || shows && !reads || !shows && reads && w.way != "page" { // the page has one example of each reason: TestColumnPolicies sees it there
			t.Errorf("%s by way of %s: %d, %.600s", role, w.way, status, text)
		}
		if may && !strings.Contains(text, "type") { // the reason
			t.Errorf("%s by way of %s does not see why: %.600s", role, w.way, text)
		}
		if may && !reads && strings.HasSuffix(w.way, "json") && !strings.Contains(text, auth.DeadLetterRead.String()) {
			t.Errorf("%s by way of %s is not told what is hidden: %.600s", role, w.way, text)
		}
	}
	if !asks {
		return
	}
	for _, kind := range []string{"dead_letters", "dead_letter_log"} { // to look for a text would tell it
		status, text := r.call("POST", "/v1/query", fmt.Sprintf(`{"kind":%q,"filter":{"detail":%q}}`, kind, planted), as...)
		if want := map[bool]int{true: http.StatusOK, false: http.StatusForbidden}[reads]; status != want {
			t.Errorf("%s looks for a text in %s: %d %.300s", role, kind, status, text)
		}
	}
	if _, text := r.call("POST", "/v1/query", `{"kind":"dead_letters","filter":{"reason":"type"}}`, as...); !strings.Contains(text, `"count"`) {
		t.Errorf("%s counts: %.300s", role, text)
	}
}

// assertLettersAudited wants the refusals of whoever looked for a text.
func assertLettersAudited(t *testing.T, r *running, admin string) {
	t.Helper()
	testenv.Eventually(t, time.Minute, func() error {
		_, text := r.call("POST", "/v1/query", `{"kind":"audit","filter":{"allowed":"false","what":"query dead_letter_log"}}`, "Authorization", "Bearer "+admin)
		if !strings.Contains(text, "alpha-viewer") || !strings.Contains(text, "dead-letter:read") {
			return fmt.Errorf("no refusal in the audit: %.600s", text)
		}
		return nil
	})
}
