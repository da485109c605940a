package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/query"
)

const secretCanary = "planted-secret-"

// plantSecrets gives every secret setting a text of its own, and returns them
// by the setting's path.
func plantSecrets(v reflect.Value, path string, out map[string]string) {
	for i := range v.NumField() {
		f, name := v.Field(i), path+"."+v.Type().Field(i).Name
		canary := fmt.Sprintf("%s%02d-0123456789", secretCanary, len(out))
		switch {
		case f.Type() == reflect.TypeFor[Secret]():
			f.SetString(canary)
			out[name] = canary
		case f.Type() == reflect.TypeFor[ServerURL]() && name != ".ClickHouse.URL": // with one there is no embedded engine
			f.SetString("http://user:" + canary + "@127.0.0.1:1")
			out[name] = canary
		case f.Kind() == reflect.Struct:
			plantSecrets(f, name, out)
		}
	}
}

// TestSecretsAreNowhere plants a text in every secret setting, makes and uses
// keys, provokes failures, and looks for all of them in whatever Kedge says: its
// log at debug level, answers to every route and question, metrics, profiles,
// what it says of itself when printed. Last it leaks one on purpose.
func TestSecretsAreNowhere(t *testing.T) {
	planted := map[string]string{}
	cert, key, pool := certificate(t)
	r := startApp(t, func(c *Config) {
		plantSecrets(reflect.ValueOf(c).Elem(), "", planted)
		c.Kafka.SASL.Password, c.Features.Online.Password = "", "" // they are for servers that are not there: below
		c.Auth.Enabled, c.HTTP.TLS.CertFile, c.HTTP.TLS.KeyFile, c.Namespace = true, cert, key, "alpha"
		c.Artifacts.S3.AccessKey, c.Artifacts.S3.Endpoint, c.Artifacts.S3.Bucket = "AKIA", "http://127.0.0.1:1", "models"
		c.Alerts.Webhooks, c.Alerts.Alertmanagers = []string{"http://127.0.0.1:1/hook"}, []string{"http://127.0.0.1:1"}
		c.Outside.Tables = []OutsideTable{{Name: "clicks", Namespaces: []string{"*"}, S3: "http://127.0.0.1:1/b/*.parquet", AccessKey: "AKIA-planted-as-well", SecretKey: secretCanary + "of-objects"}}
		planted["the access key of objects"], planted["the secret key of objects"] = "AKIA-planted-as-well", secretCanary+"of-objects"
		c.ClickHouse.Listen, c.ClickHouse.Share, c.Telemetry.LogLevel = "127.0.0.1:0", "127.0.0.1:0", "debug"
	})
	if len(planted) < 8 {
		t.Fatalf("planted in %d settings alone: %v", len(planted), planted)
	}
	r.trust(pool)
	admin := r.adminKey()
	planted["the first key"], planted["a key"] = admin, r.makeKey(admin, "alpha:scientist")
	pem, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	planted["the certificate's key"] = strings.Split(string(pem), "\n")[1]
	_, planted["the broker's own password"] = r.broker.Credentials()

	said := r.everythingSaid(admin, planted["a key"])
	find := func(texts map[string]string) (found []string) {
		for where, text := range texts {
			for what, secret := range planted {
				if strings.Contains(text, secret) {
					found = append(found, what+" in "+where)
				}
			}
		}
		return found
	}
	if found := find(said); len(found) > 0 {
		t.Errorf("shown: %s", strings.Join(found, "; "))
	}
	r.sc.Log.Info("leaked on purpose", "password", string(r.cfg.ClickHouse.SharePassword))
	if found := find(map[string]string{"the log": r.log.String()}); len(found) != 1 {
		t.Errorf("the search is blind: %v", found)
	}
	t.Logf("%d secrets, %d answers, %d bytes of log", len(planted), len(said), len(said["the log"]))
	r.end()
	if found := find(map[string]string{"the log of the end": strings.ReplaceAll(r.log.String(), string(r.cfg.ClickHouse.SharePassword), "")}); len(found) > 0 {
		t.Errorf("shown: %v", found)
	}
}

// everythingSaid is all that Kedge says, good and bad, with every route asked
// by an administrator, with a key in the wrong places, and with none.
func (r *running) everythingSaid(admin, key string) map[string]string {
	r.t.Helper()
	out := map[string]string{}
	for _, pattern := range r.mux.Patterns() {
		if strings.Contains(pattern, "/v1/backup") {
			continue // all that there is, for whoever may have it
		}
		for i, a := range attempts(pattern) {
			status, text := sendAttempt(r, "https://"+r.Addr(), admin, a)
			out[fmt.Sprintf("%s %s %d (%d)", a.method, a.path, i, status)] = text
		}
	}
	for _, wrong := range []string{key + "x", "Basic " + key, "nonsense " + key} {
		status, text := r.call("GET", "/v1/status", "", "Authorization", wrong)
		out[fmt.Sprintf("a key in the wrong place (%d)", status)] = text
	}
	_, out["a definition that cannot be"] = r.call("POST", "/v1/definitions", `{"kind":"Source","name":"s","spec":{"topic":"t","mapping":{"format":"avro"}}}`, "Authorization", "Bearer "+admin)
	_, out["the audit"] = r.call("POST", "/v1/query", `{"kind":"audit"}`, "Authorization", "Bearer "+admin)
	if !strings.Contains(out["the audit"], "key:write") {
		r.t.Errorf("the audit does not have the key that was made: %.300s", out["the audit"])
	}
	if _, err := r.kafkaClientMay("u", key+"x", &net.TCPAddr{}); err != nil {
		out["the broker's refusal"] = err.Error()
	}
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 2); err != nil { // what a crash prints
		r.t.Fatal(err)
	}
	out["the stacks"] = profile.String()
	out["the configuration, printed"] = fmt.Sprintf("%v %+v %#v %s", r.cfg, r.cfg, r.cfg, printed(json.Marshal(r.cfg))) + string(printed(yaml.Marshal(r.cfg)))
	broken := r.cfg
	broken.Kafka.Brokers, broken.Kafka.SASL = []string{"no port"}, SASL{Mechanism: "none", Password: r.cfg.ClickHouse.SharePassword}
	broken.ClickHouse.URL = "http://user:" + ServerURL(r.cfg.ClickHouse.SharePassword) + "@[::1"
	if err := broken.Validate(); err != nil {
		out["the faults of a configuration"] = err.Error()
	}
	for _, k := range query.Kinds() {
		_, out["kind "+k.Name] = r.call("POST", "/v1/query", queryFor(k, ""), "Authorization", "Bearer "+admin, auth.NamespaceHeader, "alpha")
	}
	files, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "*.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			out["the file "+filepath.Base(f)] = string(b)
		}
	}
	out["the log"] = r.log.String()
	return out
}

func printed(b []byte, err error) []byte {
	if err != nil {
		return []byte(err.Error())
	}
	return b
}
