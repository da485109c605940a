package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPortsBeyondLoopback: refused, port by port, unless TLS and
// authentication are on, or the override is.
func TestPortsBeyondLoopback(t *testing.T) {
	ports := map[string]func(*Config, string){
		"http.listen":       func(c *Config, a string) { c.HTTP.Listen = a },
		"http.feast":        func(c *Config, a string) { c.HTTP.Feast = a },
		"grpc":              func(c *Config, a string) { c.GRPC = a },
		"kafka.listen":      func(c *Config, a string) { c.Kafka.Listen = a },
		"clickhouse.listen": func(c *Config, a string) { c.ClickHouse.Listen = a },
		"clickhouse.share":  func(c *Config, a string) { c.ClickHouse.Share, c.ClickHouse.SharePassword = a, "x" },
	}
	for member, set := range ports {
		for _, addr := range []string{"0.0.0.0:7070", "[::]:7070", ":7070", "10.0.0.1:7070", "kedge.example:7070", "127.0.0.1.example:7070", "[::ffff:10.0.0.1]:7070"} {
			refused := func(change func(*Config)) bool {
				cfg := DefaultConfig()
				set(&cfg, addr)
				change(&cfg)
				err := cfg.Validate()
				return err != nil && strings.Contains(err.Error(), member) && strings.Contains(err.Error(), "beyond loopback")
			}
			tls := func(c *Config) { c.HTTP.TLS.CertFile, c.HTTP.TLS.KeyFile = "c", "k" }
			auth := func(c *Config) { c.Auth.Enabled = true }
			for name, c := range map[string]struct {
				change func(*Config)
				want   bool
			}{
				"neither":      {func(*Config) {}, true},
				"TLS alone":    {tls, true},
				"auth alone":   {auth, true},
				"both":         {func(c *Config) { tls(c); auth(c) }, false},
				"the override": {func(c *Config) { c.Auth.Insecure = true }, false},
			} {
				if got := refused(c.change); got != c.want {
					t.Errorf("%s %s with %s: refused %v", member, addr, name, got)
				}
			}
		}
		for _, addr := range []string{"127.0.0.1:0", "[::1]:7070", "localhost:7070", "127.8.8.8:1"} {
			cfg := DefaultConfig()
			set(&cfg, addr)
			if err := cfg.Validate(); err != nil {
				t.Errorf("%s %s: %v", member, addr, err)
			}
		}
	}
	cfg := DefaultConfig()
	cfg.HTTP.Admin, cfg.Auth.Insecure = "0.0.0.0:1", true
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "http.admin") {
		t.Errorf("profiles beyond loopback: %v", err)
	}
}

// TestTheOverrideIsLogged: loudly, and by its name.
func TestTheOverrideIsLogged(t *testing.T) {
	r := startApp(t, func(c *Config) { c.HTTP.Listen, c.Auth.Insecure = ":0", true })
	if log := r.log.String(); !strings.Contains(log, "INSECURE") || !strings.Contains(log, "auth.insecure") || !strings.Contains(log, "http.listen") {
		t.Errorf("the log does not say what is open:\n%s", log)
	}
}

// certificate writes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kedge"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key, pool = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), x509.NewCertPool()
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

// TestClosedKedge: with TLS and authentication on, the first key is in the data
// directory and nothing is answered without one.
func TestClosedKedge(t *testing.T) {
	cert, key, pool := certificate(t)
	r := startApp(t, func(c *Config) {
		c.Auth.Enabled, c.HTTP.TLS.CertFile, c.HTTP.TLS.KeyFile = true, cert, key
	})
	r.trust(pool)
	admin := r.adminKey()
	if info, err := os.Stat(filepath.Join(r.cfg.DataDir, adminKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the first key's file: %v, %v", info, err)
	}
	if strings.Contains(r.log.String(), admin) {
		t.Error("the log has the first key")
	}
	for _, c := range []struct {
		method, path, key string
		want              int
	}{
		{"GET", "/livez", "", 200}, {"GET", "/v1/status", "", 401}, {"GET", "/metrics", "", 401}, {"GET", "/", "", 401}, {"GET", "/nothing", "", 401},
		{"GET", "/v1/status", admin, 200}, {"GET", "/metrics", admin, 200}, {"GET", "/", admin, 200}, {"GET", "/nothing", admin, 404},
	} {
		var credential []string
		if c.key != "" {
			credential = []string{"Authorization", "Bearer " + c.key}
		}
		if status, text := r.call(c.method, c.path, "", credential...); status != c.want {
			t.Errorf("%s %s: %d %.200s, want %d", c.method, c.path, status, text, c.want)
		}
	}
	plain, err := http.Get("http://" + r.Addr() + "/livez") // Go answers plain HTTP on a TLS port with 400
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: %s", plain.Status)
		}
	}
	res, err := r.client.Get("https://" + r.Addr() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, h := range []string{"Strict-Transport-Security", "X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy"} {
		if res.Header.Get(h) == "" {
			t.Errorf("no header %s", h)
		}
	}
}

// TestPagesOfOthersChangeNothing: another origin's page, and a name that was
// made to point at loopback.
func TestPagesOfOthersChangeNothing(t *testing.T) {
	r := startApp(t, nil)
	const event = `{"view":"v","key":{"id":1},"values":{"x":1}}`
	for _, c := range []struct {
		host, origin, site string
		want               int
	}{
		{"", "", "", 200}, {"localhost:1", "", "", 200}, {"evil.example", "", "", 421}, {"evil.example:7070", "", "", 421},
		{"", "http://evil.example", "cross-site", 403}, {"", "", "cross-site", 403},
	} {
		req, err := http.NewRequest("POST", "http://"+r.Addr()+"/v1/events", strings.NewReader(event))
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			req.Host = c.host
		}
		for name, v := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site} {
			if v != "" {
				req.Header.Set(name, v)
			}
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("host %q, origin %q, site %q: %d, want %d", c.host, c.origin, c.site, res.StatusCode, c.want)
		}
	}
}
