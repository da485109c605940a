package broker_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream/broker"
)

// guarded is a broker whose clients are "ours" and "theirs", each with a topic
// of its own, and "root", who may do everything. Passwords are the users' names
// backwards.
type guarded struct {
	*broker.Broker
	pool  *x509.CertPool
	pem   string // a file with the certificate
	ended atomic.Bool

	mu     sync.Mutex
	denied map[string]int // what "ours" and "theirs" were told that they may not
}

func startGuarded(t *testing.T, dir string) *guarded {
	t.Helper()
	cert, pool, file := certificate(t)
	g := &guarded{pool: pool, pem: file, denied: map[string]int{}}
	cfg := config(dir)
	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	cfg.Guard = func(user, password string, _ net.Addr) (broker.Client, error) {
		switch user + ":" + password {
		case "root:toor":
			return broker.Client{All: true}, nil
		case "ours:sruo", "theirs:srieht":
			if g.ended.Load() {
				break
			}
			return broker.Client{Read: []string{user}, Write: []string{user}, Prefix: []string{user + "."}, Still: func() bool { return !g.ended.Load() }, Denied: func(request, resource string, writes bool) {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.denied[fmt.Sprintf("%s: %s %s %t", user, request, resource, writes)]++
			}}, nil
		case "reader:redaer":
			return broker.Client{Read: []string{"ours"}, Prefix: []string{"ours."}}, nil
		case "writer:retirw":
			return broker.Client{Write: []string{"ours"}, Prefix: []string{"ours."}}, nil
		}
		return broker.Client{}, errors.New("the key is not accepted")
	}
	g.Broker = start(t, cfg)
	return g
}

func (g *guarded) as(t *testing.T, how sasl.Mechanism, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append([]kgo.Opt{kgo.SeedBrokers(g.Addr()), kgo.DialTLSConfig(&tls.Config{RootCAs: g.pool}), kgo.RequestRetries(0), kgo.RecordDeliveryTimeout(20 * time.Second)}, opts...)
	if how != nil {
		opts = append(opts, kgo.SASL(how))
	}
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func user(name string) sasl.Mechanism {
	b := []byte(name)
	slices.Reverse(b)
	return plain.Auth{User: name, Pass: string(b)}.AsMechanism()
}

// topics makes one for each, with a record.
func (g *guarded) topics(t *testing.T) {
	t.Helper()
	root := g.as(t, user("root"))
	req := kmsg.NewPtrCreateTopicsRequest()
	for _, name := range []string{"ours", "theirs"} {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
		req.Topics = append(req.Topics, topic)
	}
	if _, err := req.RequestWith(within(t, 20*time.Second), root); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ours", "theirs"} {
		if err := root.ProduceSync(within(t, 20*time.Second), &kgo.Record{Topic: name, Value: []byte("planted in " + name)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kedge"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	file, pool := filepath.Join(t.TempDir(), "cert.pem"), x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool, file
}

// TestGuardedBroker: who is not known gets no answer at all, and who is gets
// what is theirs.
func TestGuardedBroker(t *testing.T) {
	g := startGuarded(t, t.TempDir())
	g.topics(t)
	for name, c := range map[string]*kgo.Client{
		"no SASL":        g.as(t, nil),
		"wrong password": g.as(t, plain.Auth{User: "ours", Pass: "ruse"}.AsMechanism()),
		"no password":    g.as(t, plain.Auth{User: "client-0", Pass: " "}.AsMechanism()),
		"kfake's own":    g.as(t, plain.Auth{User: "kedge", Pass: "admin"}.AsMechanism()),
		"SCRAM":          g.as(t, scram.Auth{User: "ours", Pass: "sruo"}.AsSha256Mechanism()),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, c)
		cancel()
		switch {
		case err == nil:
			t.Errorf("%s: let in", name)
		case name == "wrong password" && !strings.Contains(err.Error(), "the key is not accepted"):
			t.Errorf("%s: told %v", name, err)
		case name == "SCRAM" && !errors.Is(err, kerr.UnsupportedSaslMechanism) && !strings.Contains(err.Error(), "PLAIN"):
			t.Errorf("%s: told %v", name, err)
		}
	}
	secret, err := g.Credentials()
	if secret == "" || err == "" {
		t.Fatal("the process has no credentials of its own")
	}
	stolen := g.as(t, plain.Auth{User: secret, Pass: err}.AsMechanism()) // good within the process alone
	if _, err := kmsg.NewPtrMetadataRequest().RequestWith(within(t, 20*time.Second), stolen); err == nil {
		t.Error("the process's own password opens the port")
	}

	ours := g.as(t, user("ours"), kgo.ConsumeTopics("ours"), kgo.ConsumerGroup("ours.readers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err := ours.ProduceSync(within(t, 20*time.Second), &kgo.Record{Topic: "ours", Value: []byte("mine")}).FirstErr(); err != nil {
		t.Errorf("own topic: %v", err)
	}
	if got := ours.PollRecords(within(t, 20*time.Second), 1); got.NumRecords() == 0 || string(got.Records()[0].Value) != "planted in ours" {
		t.Errorf("own records: %v, %v", got.Records(), got.Err())
	}
	for what, one := range map[string]struct {
		user, topic string
		ok          bool
	}{
		"another's topic": {"ours", "theirs", false}, "a missing one": {"ours", "nobodys", false}, "a reader": {"reader", "ours", false}, "a writer": {"writer", "ours", true},
	} {
		err := g.as(t, user(one.user)).ProduceSync(within(t, 30*time.Second), &kgo.Record{Topic: one.topic, Value: []byte("x")}).FirstErr()
		if (err == nil) != one.ok || !one.ok && !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.ClusterAuthorizationFailed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	meta, fault := kmsg.NewPtrMetadataRequest().RequestWith(within(t, 20*time.Second), ours)
	if fault != nil || len(meta.Topics) != 1 || *meta.Topics[0].Topic != "ours" {
		t.Errorf("listed: %v, %v", meta, fault)
	}
	broker := ours.Broker(int(meta.Brokers[0].NodeID))
	ask := func() error {
		_, err := broker.Request(within(t, 20*time.Second), kmsg.NewPtrMetadataRequest())
		return err
	}
	if err := ask(); err != nil {
		t.Errorf("before the end: %v", err)
	}
	g.ended.Store(true) // a key is revoked: what is open ends
	if err := ask(); err == nil {
		t.Error("an ended client was answered")
	}
}

// TestGuardedBrokerStartsAgain: with other passwords, and the same rights.
func TestGuardedBrokerStartsAgain(t *testing.T) {
	dir := t.TempDir()
	g := startGuarded(t, dir)
	g.topics(t)
	_, before := g.Credentials()
	g.Close()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if b, readErr := os.ReadFile(path); readErr == nil && strings.Contains(string(b), before) {
			return fmt.Errorf("%s keeps the password", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	g = startGuarded(t, dir)
	if _, after := g.Credentials(); after == before {
		t.Error("the password is the one before")
	}
	for topic, ok := range map[string]bool{"ours": true, "theirs": false} {
		if err := g.as(t, user("ours")).ProduceSync(within(t, 30*time.Second), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); (err == nil) != ok {
			t.Errorf("%s: %v", topic, err)
		}
	}
}

// TestGuardedFromJava uses Kafka's own client: it produces to and reads its own
// topic, and is refused the other.
func TestGuardedFromJava(t *testing.T) {
	java, err := exec.LookPath("java")
	if err != nil {
		testenv.Skip(t, testenv.NoTool, "java is not installed: %v", err)
	}
	libs := testenv.Dep(t, "kafka/libs")
	g := startGuarded(t, t.TempDir())
	g.topics(t)
	cmd := exec.CommandContext(within(t, 3*time.Minute), java, "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(libs, "*"), "testdata/Guarded.java", g.Addr(), g.pem)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := "read planted in ours\nread from java\ntopics [ours]\nrefused TopicAuthorizationException\nrefused GroupAuthorizationException\nrefused SaslAuthenticationException the key is not accepted\nrefused UnsupportedSaslMechanismException\n"
	if string(out) != want {
		t.Errorf("Java says:\n%s\nwant:\n%s", out, want)
	}
}

// TestDenialsAreTold: whoever asks whose right a client's is hears what it asked
// for and may not have, and of what it may nothing.
func TestDenialsAreTold(t *testing.T) {
	g := startGuarded(t, t.TempDir())
	g.topics(t)
	c := g.as(t, user("ours"))
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(within(t, 20*time.Second), c)
	if err != nil {
		t.Fatal(err)
	}
	b := c.Broker(int(meta.Brokers[0].NodeID))
	for _, topic := range []string{"ours", "theirs"} {
		for range 3 {
			ask := kmsg.NewPtrMetadataRequest()
			one := kmsg.NewMetadataRequestTopic()
			one.Topic = kmsg.StringPtr(topic)
			ask.Topics = append(ask.Topics, one)
			group := kmsg.NewPtrOffsetFetchRequest()
			group.Group = topic + ".readers"
			of := kmsg.NewOffsetFetchRequestGroup()
			of.Group = group.Group
			group.Groups = append(group.Groups, of)
			fetch := kmsg.NewPtrFetchRequest()
			ft, fp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
			ft.Topic, fp.PartitionMaxBytes = topic, 1<<20
			ft.Partitions = append(ft.Partitions, fp)
			fetch.Topics = append(fetch.Topics, ft)
			create := kmsg.NewPtrCreateTopicsRequest()
			for _, req := range []kmsg.Request{ask, group, fetch, create} {
				if _, err := b.Request(within(t, 20*time.Second), req); err != nil {
					t.Fatalf("%s: %T: %v", topic, req, err)
				}
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, want := range []string{"ours: Metadata topic theirs false", "ours: OffsetFetch group theirs.readers false"} {
		if g.denied[want] != 1 {
			t.Errorf("%s was told %d times: %v", want, g.denied[want], g.denied)
		}
	}
	for told := range g.denied {
		if !strings.Contains(told, "theirs") || strings.HasPrefix(told, "theirs") {
			t.Errorf("told of what it may: %s", told)
		}
	}
}
