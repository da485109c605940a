package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/stream"
)

// TestSettingsLeadNowhereElse: every setting that is an address is asked
// through a client that goes to what it names alone. A server that it names and
// that sends its clients on, by a redirect or by a document, leads nobody to
// another.
func TestSettingsLeadNowhereElse(t *testing.T) {
	p := newPrey(t)
	onward := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "openid-configuration") {
			_, _ = io.WriteString(w, `{"issuer":"http://`+r.Host+`","jwks_uri":"http://`+p.port.Addr().String()+`/keys"}`)
			return
		}
		http.Redirect(w, r, "http://"+p.port.Addr().String()+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer onward.Close()
	cfg := DefaultConfig()
	cfg.Auth.OIDC = OIDCConfig{Issuer: onward.URL, Audience: "kedge", Algorithms: []string{"RS256"}}
	cfg.Auth.Grafana = OIDCConfig{Issuer: onward.URL, Audience: "kedge", Algorithms: []string{"ES256"}, KeySet: onward.URL + "/keys"}
	token := "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJ4In0.c2ln"
	ask := func(ctx context.Context, client *http.Client, address string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader("{}"))
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	settings := map[string]func(ctx context.Context) error{
		"auth.oidc": func(ctx context.Context) error {
			v, err := cfg.Auth.OIDC.tokens("oidc", &cfg)
			if err == nil {
				_, err = v.Identify(ctx, token, func() error { return nil })
			}
			return err
		},
		"auth.grafana": func(ctx context.Context) error {
			v, err := cfg.Auth.Grafana.tokens("grafana", &cfg)
			if err == nil {
				_, err = v.Identify(ctx, strings.Replace(token, "RS", "ES", 1), func() error { return nil })
			}
			return err
		},
		"alerts": func(ctx context.Context) error {
			return ask(ctx, cfg.outbound(time.Second, onward.URL).Client(), onward.URL+"/api/v2/alerts")
		},
		"sources.schema_registry": func(ctx context.Context) error {
			s, err := stream.NewSchemaRegistry(onward.URL, cfg.outbound(time.Second, onward.URL).Client())
			if err == nil {
				_, err = s.Schema(ctx, 1)
			}
			return err
		},
		"telemetry.otlp": func(ctx context.Context) error {
			return ask(ctx, cfg.outbound(time.Second, onward.URL).Client(), onward.URL+"/v1/traces")
		},
	}
	for name, try := range settings {
		if err := try(t.Context()); errors.Is(err, auth.ErrNoCredential) {
			t.Errorf("%s: %v", name, err)
		}
		if p.calls.Load() > 0 {
			t.Fatalf("%s leads elsewhere", name)
		}
	}
	if err := ask(t.Context(), http.DefaultClient, onward.URL); err != nil || p.calls.Load() == 0 {
		t.Errorf("the attack is blind: a client that goes where it is sent: %v, %d", err, p.calls.Load())
	}
	for _, address := range []string{"http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "http://0.0.0.0:1/", "http://2130706433/", "http://127.1/", "http://[::ffff:169.254.169.254]/"} {
		if err := ask(t.Context(), cfg.outbound(5*time.Second, address).Client(), address); err == nil {
			t.Errorf("%s was called", address)
		} else if !errors.Is(err, web.ErrOutbound) && !strings.Contains(err.Error(), "no such host") && !strings.Contains(err.Error(), "lookup") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
