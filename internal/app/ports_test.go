package app

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestKafkaPortTakesKeys: with authentication the embedded broker takes keys,
// each for the topics of its namespaces; a revoked one ends what is open.
func TestKafkaPortTakesKeys(t *testing.T) {
	cert, key, pool := certificate(t)
	r := startApp(t, func(c *Config) {
		c.Auth.Enabled, c.HTTP.TLS.CertFile, c.HTTP.TLS.KeyFile, c.Namespace = true, cert, key, "alpha"
	})
	r.trust(pool)
	admin := r.adminKey()
	if status, text := r.call("POST", "/v1/definitions", `{"kind":"Namespace","name":"beta","spec":{"owner":"b"}}`, "Authorization", "Bearer "+admin); status != 200 {
		t.Fatalf("namespace: %d %s", status, text)
	}
	client := func(password string) *kafka.Client {
		tr := &kafka.Transport{TLS: &tls.Config{RootCAs: pool}, SASL: plain.Mechanism{Username: "kedge", Password: password}}
		t.Cleanup(tr.CloseIdleConnections)
		return &kafka.Client{Addr: kafka.TCP(r.Brokers()...), Transport: tr, Timeout: 20 * time.Second}
	}
	listed := func(c *kafka.Client) (string, error) {
		m, err := c.Metadata(t.Context(), &kafka.MetadataRequest{})
		if err != nil {
			return "", err
		}
		var names []string
		for _, topic := range m.Topics {
			names = append(names, topic.Name)
		}
		return strings.Join(names, " "), nil
	}
	produce := func(c *kafka.Client, topic string) error {
		res, err := c.Produce(t.Context(), &kafka.ProduceRequest{Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte(`{"view":"rides","key":{"id":1},"event_time":"2026-01-01T00:00:00Z","values":{"x":1}}`))})})
		if err != nil {
			return err
		}
		return res.Error
	}
	fetch := func(c *kafka.Client, topic string) error {
		res, err := c.Fetch(t.Context(), &kafka.FetchRequest{Topic: topic, MaxBytes: 1 << 20, MaxWait: time.Second})
		if err != nil {
			return err
		}
		return res.Error
	}
	for grant, may := range map[string]struct{ produce, fetch string }{
		"beta:viewer": {}, "beta:scientist": {},
		"beta:producer": {produce: "kedge.beta.features kedge.beta.labels"},
		"beta:operator": {fetch: "kedge.beta.features kedge.beta.served"},
		"beta:admin":    {produce: "kedge.beta.features", fetch: "kedge.beta.features"},
		"*:operator":    {fetch: "kedge.alpha.features kedge.beta.features"},
		"*:admin":       {produce: "kedge.alpha.features", fetch: "kedge.registry kedge.audit"},
	} {
		c := client(r.makeKey(admin, grant))
		names, err := listed(c)
		if may.produce+may.fetch == "" {
			if err == nil || !strings.Contains(err.Error(), "may not") && !errors.Is(err, kafka.SASLAuthenticationFailed) {
				t.Errorf("%s: listed %q, %v", grant, names, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", grant, err)
		}
		for _, topic := range []string{"kedge.alpha.features", "kedge.beta.features", "kedge.beta.labels", "kedge.beta.served", "kedge.registry", "kedge.audit"} {
			all := grant == "*:admin"
			ours := strings.HasPrefix(topic, "kedge.beta.")
			if err, ok := fetch(c, topic), all || strings.Contains(may.fetch, topic) || ours && may.fetch != ""; (err == nil) != ok {
				t.Errorf("%s, fetch %s: %v, want %v", grant, topic, err, ok)
			}
			if all && (topic == "kedge.registry" || topic == "kedge.audit") {
				continue // they stay as they are
			}
			if err, ok := produce(c, topic), all || may.produce != "" && ours && topic != "kedge.beta.served"; (err == nil) != ok {
				t.Errorf("%s, produce %s: %v, want %v", grant, topic, err, ok)
			}
			if want := all || strings.Contains(names, topic); !want && strings.Contains(may.fetch+may.produce, topic) {
				t.Errorf("%s does not see %s", grant, topic)
			}
		}
		if strings.Contains(names, "alpha") && strings.HasPrefix(grant, "beta") || strings.Contains(names, "registry") && grant != "*:admin" {
			t.Errorf("%s sees %s", grant, names)
		}
	}
	secret := r.makeKey(admin, "beta:producer")
	c := client(secret)
	if err := produce(c, "kedge.beta.features"); err != nil {
		t.Fatal(err)
	}
	if status, text := r.call("DELETE", "/v1/keys/"+secret[len("kedge_"):len("kedge_")+10], "", "Authorization", "Bearer "+admin); status != 204 {
		t.Fatalf("revoke: %d %s", status, text)
	}
	if err := produce(c, "kedge.beta.features"); err == nil {
		t.Error("a revoked key produces")
	}
	testenv.Eventually(t, time.Minute, func() error { // what was produced became rows of its namespace
		status, text := r.call("POST", "/v1/query", `{"kind":"rows","view":"rides","namespace":"beta"}`, "Authorization", "Bearer "+r.makeKey(admin, "beta:viewer"))
		if status != 200 || !strings.Contains(text, "rides") && !strings.Contains(text, `"id"`) {
			return fmt.Errorf("%d %s", status, text)
		}
		return nil
	})
	if _, text := r.call("POST", "/v1/query", `{"kind":"audit","filter":{"what":"kafka"}}`, "Authorization", "Bearer "+r.makeKey(admin, "beta:admin")); !strings.Contains(text, "denied") {
		t.Errorf("the audit does not have those who may not: %s", text)
	}
	testenv.Eventually(t, time.Minute, func() error { // refusals are written soon after
		_, text := r.call("POST", "/v1/query", `{"kind":"audit","filter":{"what":"kafka ","subject":"beta-operator"}}`, "Authorization", "Bearer "+r.makeKey(admin, "beta:admin"))
		if !strings.Contains(text, "kafka Produce") || !strings.Contains(text, "topic kedge.beta.labels") || !strings.Contains(text, "event:write") || !strings.Contains(text, "forbidden") {
			return fmt.Errorf("the audit does not have what the broker denied: %s", text)
		}
		return nil
	})
}

// TestClickHousePortTakesKeys: a key is the password, and shows the tables of
// its namespaces; clickhouse-go, unmodified, over TLS.
func TestClickHousePortTakesKeys(t *testing.T) {
	cert, key, pool := certificate(t)
	r := startApp(t, func(c *Config) {
		c.Auth.Enabled, c.HTTP.TLS.CertFile, c.HTTP.TLS.KeyFile, c.Namespace = true, cert, key, "alpha"
		c.ClickHouse.Listen = "127.0.0.1:0"
	})
	r.trust(pool)
	admin := r.adminKey()
	plant(t, r, admin)
	tables := map[string]string{}
	for _, s := range r.store.Schemas() {
		tables[s.Subject] = s.Table()
	}
	ask := func(password, sql string) (string, error) {
		conn, err := clickhouse.Open(&clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{r.ports[0].ln.Addr().String()},
			TLS: &tls.Config{RootCAs: pool}, Auth: clickhouse.Auth{Username: "reader", Password: password}})
		if err != nil {
			return "", err
		}
		defer conn.Close()
		var out string
		return out, conn.QueryRow(t.Context(), sql).Scan(&out)
	}
	rows := "SELECT any(v_secret) FROM kedge." + tables["vault"]
	for grant, may := range map[string]bool{"": false, "alpha:viewer": true, "alpha:producer": false, "beta:admin": false, "*:viewer": true, "*:admin": true} {
		secret := "kedge_0000000000_" + strings.Repeat("0", 64)
		if grant != "" {
			secret = r.makeKey(admin, grant)
		}
		if got, err := ask(secret, rows); (err == nil && strings.HasPrefix(got, leak)) != may {
			t.Errorf("%s: %q, %v", grant, got, err)
		}
		for _, sql := range []string{
			"SELECT toString(groupArray(name)) FROM system.tables", "SELECT toString(groupArray(name)) FROM system.columns", "SELECT toString(groupArray(spec)) FROM kedge.definitions",
			"SELECT toString(groupArray(table_name)) FROM information_schema.tables", "SELECT toString(hasColumnInTable('kedge', '" + tables["vault"] + "', 'secret'))",
			"SELECT toString(count()) FROM (SELECT * FROM kedge.dead_letters)", "SELECT toString((SELECT count() FROM kedge.ledger))",
		} {
			if got, err := ask(secret, sql); (err == nil) != (grant == "*:admin") && !strings.Contains(sql, "hasColumn") || err == nil && grant != "*:admin" {
				t.Errorf("%s, %s: %q, %v", grant, sql, got, err)
			}
		}
		if got, err := ask(secret, "SELECT toString(sum(number)) FROM numbers(3)"); (err == nil && got == "3") != (strings.HasSuffix(grant, ":viewer") || strings.HasSuffix(grant, ":admin")) {
			t.Errorf("%s: %q, %v", grant, got, err)
		}
	}
	testenv.Eventually(t, time.Minute, func() error { // refusals are written soon after
		denied := r.journal.Newest("", 1000, func(e *auth.Entry) bool { return !e.Allowed && e.What == "clickhouse" && e.Remote != "" })
		for who, target := range map[string]string{"key:alpha-viewer": "system.tables", "key:beta-admin": tables["vault"]} {
			if !slices.ContainsFunc(denied, func(e auth.Entry) bool { return e.Subject == who && strings.Contains(e.Target, target) }) {
				return fmt.Errorf("no denial of %s for %s: %+v", who, target, denied)
			}
		}
		return nil
	})
}
