package stream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kedge-ml/kedge/stream"
)

// certificate makes a key pair for the loopback address and the pool that
// trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLSAndSASL(t *testing.T) {
	cert, pool := certificate(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}),
				kfake.EnableSASL(), kfake.Superuser(mechanism, "user", "pass"), kfake.SeedTopics(2, "events"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(k.Close)
			secure(t, k.ListenAddrs(), mechanism, pool)
		})
	}
}

// secure uses every way of connecting, and is refused without the password.
func secure(t *testing.T, brokers []string, mechanism string, pool *x509.CertPool) {
	ctx := limit(t, 30*time.Second)
	cfg := stream.Config{Brokers: brokers, TLS: &tls.Config{RootCAs: pool}, SASL: stream.SASL{Mechanism: mechanism, User: "user", Password: "pass"}}
	c, err := stream.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := c.Producer(stream.ProducerConfig{})
	defer p.Close()
	if err := p.Produce(ctx, "events", stream.Message{Value: []byte("v"), Pinned: true}); err != nil {
		t.Fatal(err)
	}
	g, err := c.JoinGroup(ctx, stream.GroupConfig{ID: "g", Topics: []string{"events"}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if gen, err := g.Next(ctx); err != nil || len(gen.Assigned) != 2 {
		t.Fatalf("assignment %+v, %v", gen, err)
	}
	done := errors.New("done")
	err = c.NewFetcher(stream.FetchConfig{}).Run(ctx, map[stream.TopicPartition]int64{{Topic: "events"}: 0}, func(_ context.Context, b *stream.Batch) error {
		b.Release()
		return done
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for name, wrong := range map[string]func(*stream.Config){
		"password": func(c *stream.Config) { c.SASL.Password = "guess" },
		"no sasl":  func(c *stream.Config) { c.SASL = stream.SASL{} },
		"no tls":   func(c *stream.Config) { c.TLS = nil },
		"stranger": func(c *stream.Config) { c.TLS = &tls.Config{RootCAs: x509.NewCertPool()} },
	} {
		bad := cfg
		wrong(&bad)
		c, err := stream.NewClient(bad)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ping(short); err == nil {
			t.Errorf("%s: let in", name)
		}
		c.Close()
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := stream.Config{Brokers: []string{"nohost", "h:1"}, SASL: stream.SASL{Mechanism: "KERBEROS"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "nohost") || !strings.Contains(err.Error(), "KERBEROS") {
		t.Errorf("error %v", err)
	}
	if err := (stream.Config{}).Validate(); err == nil {
		t.Error("no brokers, no error")
	}
}
