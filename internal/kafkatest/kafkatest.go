// Package kafkatest starts real Kafka brokers for tests: Java processes in
// KRaft mode on loopback ports, with their data in the test's folder.
//
// Promises: everything started has ended when the test ends; brokers can be
// killed, paused and started again one by one. A test on a machine without
// Java or without the jars skips through testenv, and fails under CI.
package kafkatest

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream/broker"
)

// Config says what to start.
type Config struct {
	Brokers    int               // 1 or 3; each is controller, too
	Properties map[string]string // beside or instead of the defaults
	Heap       string            // "-Xmx" of each; 320m when empty

	// Through is called with each broker's address and returns the one that
	// clients are told instead: a proxy's. May be nil.
	Through func(addr string) string
}

// Cluster is a set of running brokers.
type Cluster struct {
	nodes []*node
}

type node struct {
	id     int
	addr   string // that it listens on
	told   string // that clients are told
	dir    string
	heap   string
	libs   string
	java   string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Each runs a test on the embedded broker and on one real Kafka broker.
func Each(t *testing.T, run func(t *testing.T, addr string)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { run(t, Embedded(t)) })
	t.Run("kafka", func(t *testing.T) { run(t, Start(t, 1).Addr()) })
}

// Embedded starts the embedded broker for a test and returns its address.
func Embedded(t testing.TB) string {
	t.Helper()
	b, err := broker.Start(broker.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b.Addr()
}

// Start starts brokers and waits until they answer.
func Start(t testing.TB, brokers int) *Cluster {
	t.Helper()
	return StartConfig(t, Config{Brokers: brokers})
}

// StartConfig starts brokers and waits until they answer.
func StartConfig(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	java, err := exec.LookPath("java")
	if err != nil {
		testenv.Skip(t, testenv.NoTool, "java is not installed: %v", err)
	}
	c := &Cluster{}
	libs := testenv.Dep(t, "kafka/libs")
	addrs, voters := addresses(t, cfg.Brokers)
	for i := range cfg.Brokers {
		n := &node{id: i + 1, addr: addrs[i], told: addrs[i], dir: t.TempDir(), heap: cfg.Heap, libs: libs, java: java}
		if cfg.Through != nil {
			n.told = cfg.Through(n.addr)
		}
		n.prepare(t, voters, cfg)
		c.nodes = append(c.nodes, n)
	}
	t.Cleanup(c.stop)
	for i := range c.nodes {
		c.start(t, i)
	}
	c.ready(t)
	return c
}

// addresses picks loopback addresses for the brokers and their controllers.
func addresses(t testing.TB, brokers int) (addrs []string, voters []string) {
	t.Helper()
	for i := range brokers {
		addrs = append(addrs, testenv.Address(t))
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, testenv.Address(t)))
	}
	return addrs, voters
}

// prepare writes a broker's settings, and the identity that formatting its
// storage would write: one Java start less.
func (n *node) prepare(t testing.TB, voters []string, cfg Config) {
	t.Helper()
	data := filepath.Join(n.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	id := base64.RawURLEncoding.EncodeToString([]byte("kedge test node 0" + fmt.Sprint(n.id))[2:18])
	meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n",
		base64.RawURLEncoding.EncodeToString([]byte("kedge test kafka")), n.id, id)
	if err := os.WriteFile(filepath.Join(data, "meta.properties"), []byte(meta), 0o644); err != nil {
		t.Fatal(err)
	}
	_, controller, _ := strings.Cut(voters[n.id-1], "@")
	props := properties(cfg.Brokers)
	maps.Copy(props, map[string]string{
		"node.id":                  fmt.Sprint(n.id),
		"controller.quorum.voters": strings.Join(voters, ","),
		"listeners":                "PLAINTEXT://" + n.addr + ",CONTROLLER://" + controller,
		"advertised.listeners":     "PLAINTEXT://" + n.told,
		"log.dirs":                 data,
	})
	maps.Copy(props, cfg.Properties)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(props)) {
		fmt.Fprintf(&b, "%s=%s\n", k, props[k])
	}
	if err := os.WriteFile(filepath.Join(n.dir, "server.properties"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// properties are the settings that all brokers share: a lost broker is
// noticed soon, retention is looked at every second. A broker that was paused
// answers nobody; with the default of 30 s the others would wait that long for
// each of its answers, and could not change the set of replicas in sync.
func properties(brokers int) map[string]string {
	copies := fmt.Sprint(brokers)
	insync := fmt.Sprint((brokers + 1) / 2)
	return map[string]string{
		"process.roles":                                    "broker,controller",
		"controller.listener.names":                        "CONTROLLER",
		"auto.create.topics.enable":                        "false",
		"num.partitions":                                   "4",
		"default.replication.factor":                       copies,
		"min.insync.replicas":                              insync,
		"offsets.topic.num.partitions":                     "1",
		"offsets.topic.replication.factor":                 copies,
		"transaction.state.log.num.partitions":             "1",
		"transaction.state.log.replication.factor":         copies,
		"transaction.state.log.min.isr":                    insync,
		"share.coordinator.state.topic.replication.factor": copies,
		"group.initial.rebalance.delay.ms":                 "0",
		"group.min.session.timeout.ms":                     "1000",
		"broker.heartbeat.interval.ms":                     "500",
		"broker.session.timeout.ms":                        "3000",
		"controller.quorum.election.timeout.ms":            "1000",
		"controller.quorum.fetch.timeout.ms":               "2000",
		"replica.lag.time.max.ms":                          "3000",
		"replica.socket.timeout.ms":                        "3000",
		"controller.socket.timeout.ms":                     "3000",
		"request.timeout.ms":                               "3000",
		"log.retention.check.interval.ms":                  "1000",
		"log.segment.delete.delay.ms":                      "1000",
		"log.cleaner.backoff.ms":                           "200",
		"log.cleaner.dedupe.buffer.size":                   "8388608",
		"message.max.bytes":                                "20971520",
		"num.network.threads":                              "2",
		"num.io.threads":                                   "2",
	}
}

func (c *Cluster) start(t testing.TB, i int) {
	t.Helper()
	n := c.nodes[i]
	out, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	heap := n.heap
	if heap == "" {
		heap = "320m"
	}
	n.cmd = exec.Command(n.java, "-Xmx"+heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(n.libs, "*"),
		"kafka.Kafka", filepath.Join(n.dir, "server.properties"))
	n.cmd.Stdout, n.cmd.Stderr = out, out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		t.Fatalf("start kafka: %v", err)
	}
	exited := make(chan struct{})
	n.exited = exited
	go func(cmd *exec.Cmd) {
		cmd.Wait() //nolint:errcheck // it is killed
		close(exited)
	}(n.cmd)
}

// ready waits until all brokers know each other and no copy is behind.
func (c *Cluster) ready(t testing.TB) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	deadline := time.Now().Add(90 * time.Second)
	for {
		err := c.answers(client)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("kafka is not ready: %v\n%s", err, c.Logs())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *Cluster) answers(client *kgo.Client) error {
	for _, n := range c.nodes {
		select {
		case <-n.exited:
			return fmt.Errorf("broker %d has ended", n.id)
		default:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		return err
	}
	if found := client.DiscoveredBrokers(); len(found) != len(c.nodes) {
		client.ForceMetadataRefresh()
		return fmt.Errorf("%d of %d brokers are known", len(found), len(c.nodes))
	}
	return inSync(ctx, client)
}

// inSync reports the first partition of which a copy is behind: as long as
// there is one, losing a second broker would be two faults at once.
func inSync(ctx context.Context, client *kgo.Client) error {
	all, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range all.Topics {
		for _, p := range t.Partitions {
			if len(p.ISR) != len(p.Replicas) {
				return fmt.Errorf("%s/%d: of the copies on %v only %v are in sync", *t.Topic, p.Partition, p.Replicas, p.ISR)
			}
		}
	}
	return nil
}

// Addr returns all brokers' addresses, separated by commas.
func (c *Cluster) Addr() string { return strings.Join(c.Addrs(), ",") }

// Addrs returns the brokers' addresses, as clients are told them.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.told)
	}
	return out
}

// Len returns how many brokers the cluster has.
func (c *Cluster) Len() int { return len(c.nodes) }

// Kill ends broker i as a power cut of its process would.
func (c *Cluster) Kill(t testing.TB, i int) {
	t.Helper()
	if err := c.nodes[i].cmd.Process.Kill(); err != nil {
		t.Fatalf("kill broker %d: %v", i, err)
	}
	<-c.nodes[i].exited
}

// Pause stops broker i in its tracks; connections stay open.
func (c *Cluster) Pause(t testing.TB, i int) {
	t.Helper()
	if err := c.nodes[i].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("pause broker %d: %v", i, err)
	}
}

// Resume lets a paused broker go on.
func (c *Cluster) Resume(t testing.TB, i int) {
	t.Helper()
	if err := c.nodes[i].cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatalf("resume broker %d: %v", i, err)
	}
}

// Restart starts broker i again after [Cluster.Kill], without waiting for it.
func (c *Cluster) Restart(t testing.TB, i int) {
	t.Helper()
	c.start(t, i)
}

// Ready waits until all brokers answer, know each other and have all records.
func (c *Cluster) Ready(t testing.TB) {
	t.Helper()
	c.ready(t)
}

// AwaitMembers waits until a group has so many members and is at rest.
func AwaitMembers(t testing.TB, addr, group string, n int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addr, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	testenv.Eventually(t, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		found, err := describe.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		for _, g := range found.Groups {
			if g.State == "Stable" && len(g.Members) == n {
				return nil
			}
		}
		return fmt.Errorf("group %s: want %d members at rest: %+v", group, n, found.Groups)
	})
}

// Evict removes all members of a group, as an operator does who knows that
// they are dead and does not wait for their sessions to end.
func Evict(t testing.TB, addr, group string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addr, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// A busy broker may answer for a while that the group's coordinator is not available.
	testenv.Eventually(t, time.Minute, func() error { return evict(client, group) })
}

func evict(client *kgo.Client, group string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	found, err := describe.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("describe group %s: %w", group, err)
	}
	for _, g := range found.Groups {
		for _, m := range g.Members {
			leave := kmsg.NewPtrLeaveGroupRequest()
			leave.Group, leave.MemberID = group, m.MemberID
			member := kmsg.NewLeaveGroupRequestMember()
			member.MemberID = m.MemberID
			leave.Members = append(leave.Members, member)
			if _, err := leave.RequestWith(ctx, client); err != nil {
				return fmt.Errorf("evict %s: %w", m.MemberID, err)
			}
		}
	}
	return nil
}

// Logs returns the end of what each broker wrote.
func (c *Cluster) Logs() string {
	var b strings.Builder
	for _, n := range c.nodes {
		out, err := os.ReadFile(filepath.Join(n.dir, "log"))
		if err != nil {
			fmt.Fprintln(&b, err)
		}
		fmt.Fprintf(&b, "--- broker %d\n%s\n", n.id, out[max(0, len(out)-4000):])
	}
	return b.String()
}

func (c *Cluster) stop() {
	for _, n := range c.nodes {
		if n.cmd != nil && n.cmd.Process != nil {
			n.cmd.Process.Kill() //nolint:errcheck // it may have ended already
			<-n.exited
		}
	}
}
