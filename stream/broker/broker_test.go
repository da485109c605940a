package broker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream/broker"
)

func start(t *testing.T, cfg broker.Config) *broker.Broker {
	t.Helper()
	b, err := broker.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestTakenAddressIsNamed(t *testing.T) {
	b := start(t, config(t.TempDir()))
	cfg := config(t.TempDir())
	cfg.Addr = b.Addr()
	_, err := broker.Start(cfg)
	if err == nil || !strings.Contains(err.Error(), b.Addr()+" is taken") {
		t.Fatalf("error %v does not name %s", err, b.Addr())
	}
}

func TestAdvertisedAddressIsWhatClientsAreTold(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Advertise = "broker.example:19092"
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port to listen on, told apart from the advertised one
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addr = l.Addr().String()
	l.Close()
	b := start(t, cfg)
	if b.Addr() != cfg.Advertise {
		t.Errorf("address %s", b.Addr())
	}
	c := client(t, cfg.Addr)
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(within(t, 10*time.Second), c.SeedBrokers()[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s:%d", meta.Brokers[0].Host, meta.Brokers[0].Port); got != cfg.Advertise {
		t.Fatalf("clients are told %s", got)
	}
	cfg.Advertise = "no port"
	cfg.Addr = ""
	if _, err := broker.Start(cfg); err == nil || !strings.Contains(err.Error(), "no port") {
		t.Fatalf("error %v", err)
	}
}

func TestFreshDirectoryIsAnotherCluster(t *testing.T) {
	ctx := within(t, 10*time.Second)
	id := func(dir string) string {
		b, err := broker.Start(config(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client(t, b.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		return *meta.ClusterID
	}
	dir := t.TempDir()
	if first, again := id(dir), id(dir); first != again {
		t.Errorf("cluster id changed from %s to %s", first, again)
	}
	if id(dir) == id(t.TempDir()) {
		t.Error("two directories share a cluster id")
	}
}

// Frames that are no Kafka requests used to end the process or to allocate
// what they claim.
func TestGarbageClosesOnlyItsConnection(t *testing.T) {
	b := start(t, config(t.TempDir()))
	unknown := make([]byte, 12)
	binary.BigEndian.PutUint32(unknown, 8)
	binary.BigEndian.PutUint16(unknown[4:], 9999)
	for _, raw := range [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n"), unknown, {0, 0, 0, 0, 0, 0, 0, 0}, {255, 255, 255, 255, 0, 3, 0, 1}} {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
			t.Errorf("%q: connection not closed: %v", raw, err)
		}
		conn.Close()
	}
	if err := client(t, b.Addr()).Ping(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
}

// fillSegments produces until the partition consists of at least n files.
func fillSegments(ctx context.Context, t *testing.T, c *kgo.Client, dir string, n int) []string {
	t.Helper()
	for {
		files, err := filepath.Glob(filepath.Join(dir, "partitions", "load-0", "*.dat"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) >= n {
			return files
		}
		var rs []*kgo.Record
		for range 100 {
			rs = append(rs, &kgo.Record{Topic: "load", Value: make([]byte, 1000)})
		}
		if err := c.ProduceSync(ctx, rs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func offsets(ctx context.Context, t *testing.T, c *kgo.Client, at int64) int64 {
	t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = "load"
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Timestamp, rp.CurrentLeaderEpoch = at, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].Partitions[0].Offset
}

func TestRetentionDeletesSegmentsAndOffsetsGoOn(t *testing.T) {
	for name, set := range map[string]func(*broker.Config){
		"by size": func(c *broker.Config) { c.RetentionBytes, c.RetentionMS = 256<<10, -1 },
		"by age":  func(c *broker.Config) { c.RetentionBytes, c.RetentionMS = -1, 60_000 },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 30*time.Second)
			cfg := config(t.TempDir())
			cfg.DefaultPartitions, cfg.SegmentBytes, cfg.Sweep = 1, 64<<10, time.Hour
			b := startChild(t, cfg)
			files := fillSegments(ctx, t, client(t, b.addr), cfg.DataDir, 10)
			b.kill()
			old := time.Now().Add(-time.Hour)
			for _, f := range files { // all of them, also the one written to
				if err := os.Chtimes(f, old, old); err != nil {
					t.Fatal(err)
				}
			}
			set(&cfg)
			cfg.Sweep = 10 * time.Millisecond
			b = startChild(t, cfg) // retention runs after a restart, too
			c := client(t, b.addr)
			end := offsets(ctx, t, c, -1)
			testenv.Eventually(t, 10*time.Second, func() error {
				left, _ := filepath.Glob(filepath.Join(cfg.DataDir, "partitions", "load-0", "*.dat"))
				if len(left) > 4 || len(left) == 0 {
					return fmt.Errorf("%d files are left", len(left))
				}
				return nil
			})
			first := offsets(ctx, t, c, -2)
			if first == 0 || first >= end {
				t.Fatalf("the log goes from %d to %d", first, end)
			}
			b.kill()
			b = startChild(t, cfg)
			c = client(t, b.addr)
			if got := offsets(ctx, t, c, -1); got != end {
				t.Fatalf("after a crash the log ends at %d, not at %d", got, end)
			}
			if got := offsets(ctx, t, c, -2); got < first {
				t.Fatalf("after a crash the log starts at %d, not at %d", got, first)
			}
		})
	}
}

func TestLogTopicsAreKept(t *testing.T) {
	ctx := within(t, 30*time.Second)
	cfg := config(t.TempDir())
	cfg.SegmentBytes, cfg.RetentionBytes, cfg.Sweep = 16<<10, 1, 5*time.Millisecond
	b := start(t, cfg)
	c := client(t, b.Addr())
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "load", 1, 1
	for _, name := range []string{"retention.ms", "retention.bytes"} {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = name, kmsg.StringPtr("-1")
		rt.Configs = append(rt.Configs, rc)
	}
	req.Topics = append(req.Topics, rt)
	if _, err := req.RequestWith(ctx, c); err != nil {
		t.Fatal(err)
	}
	fillSegments(ctx, t, c, cfg.DataDir, 5)
	other := client(t, b.Addr(), kgo.DefaultProduceTopic("other"))
	testenv.Eventually(t, 10*time.Second, func() error { // a sweep has passed when the other topic shrank
		if err := other.ProduceSync(ctx, &kgo.Record{Key: []byte("k"), Value: make([]byte, 20<<10)}).FirstErr(); err != nil {
			return err
		}
		files, _ := filepath.Glob(filepath.Join(cfg.DataDir, "partitions", "other-*", "0.dat"))
		if len(files) > 0 {
			return errors.New("the other topic keeps everything")
		}
		return nil
	})
	if got := offsets(ctx, t, c, -2); got != 0 {
		t.Fatalf("the kept topic starts at %d", got)
	}
}

func TestTornLogEntriesAreRemoved(t *testing.T) {
	ctx := within(t, 30*time.Second)
	cfg := config(t.TempDir())
	b := startChild(t, cfg)
	if err := commit(ctx, client(t, b.addr, kgo.DefaultProduceTopic("load")), 1); err != nil && !strings.Contains(err.Error(), "UNKNOWN_TOPIC") {
		t.Fatal(err)
	}
	if err := client(t, b.addr).ProduceSync(ctx, &kgo.Record{Topic: "load", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := commit(ctx, client(t, b.addr), 7); err != nil {
		t.Fatal(err)
	}
	b.kill()
	f, err := os.OpenFile(filepath.Join(cfg.DataDir, "groups.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{200, 0, 0, 0, 1, 2, 3, 4, 1, 0, '{', '"'}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	b = startChild(t, cfg)
	if err := commit(ctx, client(t, b.addr), 8); err != nil {
		t.Fatal(err)
	}
	b.kill()
	b = startChild(t, cfg)
	if got := committed(ctx, t, b.addr); got != 8 {
		t.Fatalf("committed is %d, not 8", got)
	}
}

func TestFilesOfUnknownTopicsAreSetAside(t *testing.T) {
	ctx := within(t, 30*time.Second)
	cfg := config(t.TempDir())
	cfg.DefaultPartitions = 1
	b := startChild(t, cfg)
	if err := client(t, b.addr).ProduceSync(ctx, &kgo.Record{Topic: "known", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.kill()
	from := filepath.Join(cfg.DataDir, "partitions", "known-0")
	if err := os.CopyFS(filepath.Join(cfg.DataDir, "partitions", "load-0"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	own := start(t, cfg)
	if !strings.Contains(log.String(), "load-0 belongs to no topic") {
		t.Errorf("the log does not say so: %s", log.String())
	}
	c := client(t, own.Addr(), kgo.ConsumeTopics("load"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err := c.ProduceSync(ctx, &kgo.Record{Topic: "load", Value: []byte("fresh")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if rs := c.PollFetches(ctx).Records(); len(rs) != 1 || string(rs[0].Value) != "fresh" {
		t.Fatalf("the new topic holds %d records", len(rs))
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "lost+found", "load-0", "0.dat")); err != nil {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	b := start(t, config(t.TempDir()))
	if s := b.Status(); s.FreeBytes <= 0 || s.Refusing {
		t.Errorf("on a disk with space: %+v", s)
	}
	if s := start(t, broker.Config{}).Status(); s.FreeBytes != -1 || s.Refusing {
		t.Errorf("in memory: %+v", s)
	}
}
