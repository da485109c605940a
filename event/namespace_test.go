package event

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseNamespace(t *testing.T) {
	s, err := ParseNamespace([]byte("owner: growth\nowners: [ann]\nweight: 3\nquotas: {events_per_second: 100, dead_letter_bytes: 1000000}\nretention: {rows: 7d}\ntags: {cost: a1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Owner != "growth" || s.Share() != 3 || s.Quotas.EventsPerSecond != 100 || s.Retention.Rows != Duration(7*24*time.Hour) {
		t.Errorf("%+v", s)
	}
	for text, want := range map[string]string{
		"weight: -1": "weight", "weight: 1001": "weight", "quotas: {rows: -1}": "quotas: rows", "owners: ['']": "owners",
		"retention: {rows: -1h}": "retention", "retention: {volume: cold}": "go together", "retention: {move_after: 1d}": "go together",
		"retention: {volume: 'a b', move_after: 1d}": "volume", "retention: {volume: cold, move_after: 1ms}": "at least a second",
		"retention: {rows: 1d, volume: cold, move_after: 1d}": "removed before they would move", "quotas: {event_per_second: 3}": "event_per_second",
	} {
		if _, err := ParseNamespace([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, name := range []string{"", "A", "a.b", "a/b", "1a", strings.Repeat("a", 64)} {
		if CheckNamespace(name) == nil {
			t.Errorf("%q passes as a namespace", name)
		}
	}
}

// TestSeriesQuota: inference stops at the quota; what is defined goes on.
func TestSeriesQuota(t *testing.T) {
	for _, c := range []struct {
		quota int
		event string
		dead  int
	}{
		{3, `{"view":"v","key":{"k":1},"event_time":"2026-11-01T10:00:00Z","values":{"a":1,"b":2}}`, 0},
		{3, `{"view":"v","key":{"k":1},"event_time":"2026-11-01T10:00:00Z","values":{"a":1,"c":2}}`, 0},
		{2, `{"view":"v","key":{"k":1},"event_time":"2026-11-01T10:00:00Z","values":{"a":1,"c":2}}`, 1},
		{2, `{"view":"w","key":{"k":1},"event_time":"2026-11-01T10:00:00Z","values":{}}`, 1},
		{3, `{"view":"v","key":{"k":1},"event_time":"2026-11-01T10:00:00Z","values":{"c":1,"d":2}}`, 1},
		{0, `{"view":"w","key":{"k":1},"event_time":"2026-11-01T10:00:00Z","values":{"c":1}}`, 0},
	} {
		cat, err := NewCatalog([]CatalogEntry{
			{Kind: NamespaceKind, Namespace: "team", Name: "team", Spec: fmt.Appendf(nil, `{"quotas":{"series":%d}}`, c.quota)},
			{Kind: FeatureViewKind, Namespace: "team", Name: "v", UID: 1, Spec: []byte(`{"origin":"inferred","keys":[{"name":"k","type":"Int64"}],"columns":[{"name":"a","type":"Int64"},{"name":"b","type":"Int64"}]}`)},
		})
		if err != nil {
			t.Fatal(err)
		}
		u := &Unit{Topic: "kedge.team.features", Namespace: "team", Kind: Features}
		u.Reset(cat)
		NewDecoder(DefaultDecoderConfig()).Decode(u, Record{Time: 1793527200000000, Value: []byte(c.event)})
		if len(u.Dead) != c.dead || c.dead > 0 && (u.Dead[0].Reason != ReasonLimit || !strings.Contains(u.Dead[0].Detail, "quotas.series")) {
			t.Errorf("quota %d, %s: dead letters %+v", c.quota, c.event, u.Dead)
		}
	}
}
