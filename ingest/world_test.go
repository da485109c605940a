package ingest_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/failpoint"
	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(childMain(text))
	}
	// toxiproxy leaves the pipes of a connection behind when its far end refuses
	// what is written: nobody takes what they send any more. Nothing of ours runs in them.
	const toxiproxy = "github.com/Shopify/toxiproxy/v2"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(toxiproxy+"/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction(toxiproxy+".(*ToxicLink).read"),
		goleak.IgnoreAnyFunction(toxiproxy+".(*ToxicLink).write"),
		goleak.IgnoreAnyFunction(toxiproxy+".(*ToxicLink).RemoveToxic.func1"),
		goleak.Cleanup(func(code int) {
			os.RemoveAll(binaryDir())
			os.Exit(code)
		}))
}

func binaryDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprint("kedge-ingest-test-", os.Getpid()))
}

// childBinary returns a build of this test with failpoints: the children.
func childBinary(t testing.TB) string {
	t.Helper()
	if failpoint.Enabled {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return exe
	}
	path := filepath.Join(binaryDir(), "ingest.test")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	made := filepath.Join(binaryDir(), t.Name(), "ingest.test") // two tests may be at it
	if out, err := exec.Command("go", "test", "-c", "-tags", "failpoint", "-o", made, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the children: %v\n%s", err, out)
	}
	if err := os.Rename(made, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// world is a broker, a store and consumers, in processes of their own.
type world struct {
	t          testing.TB
	dir        string
	seed       uint64
	lib        string
	brokers    string
	partitions int
	copies     int    // of each topic; 0: the broker's default
	inside     bool   // the consumer's process holds the broker too
	broker     *child // the embedded one in a process of its own; nil when it is inside, or a real Kafka
	client     *stream.Client
	producer   *stream.Producer
	cfg        jobConfig
	retention  int64  // bytes that the broker keeps of a topic; 0: all
	storeDir   string // where the embedded store lies; in dir when empty
	storeAddr  string // where a process of its own serves the store; "": the consumer's holds it
	storeVia   string // where consumers find that store; storeAddr when empty
	store      *child
	flushes    string // see job

	mu     sync.Mutex
	next   int64
	wanted int64 // how many events a load may produce so far; 0: any
	acked  tally // which events the broker acknowledged
}

// newWorld starts a broker of its own, unless inside is set: then each consumer
// brings the broker with it.
func newWorld(t testing.TB, inside bool) *world {
	t.Helper()
	w := emptyWorld(t, testenv.Address(t))
	w.inside = inside
	if !inside {
		w.startBroker()
	}
	w.connect()
	if !inside {
		w.makeTopics()
	}
	return w
}

// newKafkaWorld starts real Kafka brokers; through, if not nil, puts a proxy
// before each.
func newKafkaWorld(t testing.TB, brokers int, through func(string) string) (*world, *kafkatest.Cluster) {
	t.Helper()
	k := kafkatest.StartConfig(t, kafkatest.Config{Brokers: brokers, Through: through})
	w := emptyWorld(t, k.Addr())
	w.copies = brokers
	w.connect()
	w.makeTopics()
	return w, k
}

func emptyWorld(t testing.TB, brokers string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), seed: seedOf(t.Name()), lib: testenv.LibCHDB(t), brokers: brokers, partitions: 2,
		cfg: jobConfig{MinDelay: 20 * time.Millisecond, MaxRows: 400, Window: window}}
	t.Logf("seed %d", w.seed)
	childBinary(t)
	return w
}

// connect makes the test's own client.
func (w *world) connect() {
	w.t.Helper()
	var err error
	if w.client, err = stream.NewClient(stream.Config{Brokers: strings.Split(w.brokers, ","), RequestTimeout: 5 * time.Second}); err != nil {
		w.t.Fatal(err)
	}
	w.producer = w.client.Producer(stream.ProducerConfig{})
	w.t.Cleanup(func() {
		w.producer.Close()
		w.client.Close()
	})
}

func (w *world) startBroker() {
	w.t.Helper()
	w.broker = w.start("broker", job{Broker: w.brokers, BrokerDir: filepath.Join(w.dir, "broker"), Partitions: w.partitions, Retention: w.retention}, nil)
	w.broker.await(w.t, "ready")
}

// startStore serves the store from a process of its own.
func (w *world) startStore() {
	w.t.Helper()
	if w.storeAddr == "" {
		w.storeAddr = testenv.Address(w.t)
	}
	w.store = w.start("store", job{Lib: w.lib, StoreDir: w.storePath(), StoreAddr: w.storeAddr}, nil)
	w.store.await(w.t, "ready")
}

func (w *world) makeTopics() {
	w.t.Helper()
	var specs []stream.TopicSpec
	for _, k := range kinds() {
		specs = append(specs, stream.TopicSpec{Name: topicOf(k), Partitions: w.partitions, Replication: w.copies, Config: map[string]string{"message.timestamp.type": "LogAppendTime"}})
	}
	if err := w.client.EnsureTopics(w.t.Context(), specs); err != nil {
		w.t.Fatal(err)
	}
}

// consumer starts a consumer on the embedded store.
func (w *world) consumer(env ...string) *child {
	w.t.Helper()
	cfg := w.cfg
	j := job{Brokers: w.brokers, Lib: w.lib, StoreDir: w.storePath(), Ingest: &cfg, Partitions: w.partitions, Flushes: w.flushes}
	if w.storeAddr != "" {
		j.StoreDir, j.StoreDSN = "", "http://"+cmp.Or(w.storeVia, w.storeAddr)
	}
	if w.inside {
		j.Broker, j.BrokerDir = w.brokers, filepath.Join(w.dir, "broker")
	}
	return w.start("consumer", j, env)
}

// child is a process of the test.
type child struct {
	name   string
	cmd    *exec.Cmd
	lines  chan []byte
	stderr bytes.Buffer
	ended  chan struct{}
	err    error

	mu     sync.Mutex
	status ingest.Status
	ready  bool
}

func (w *world) start(name string, j job, env []string) *child {
	w.t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &child{name: name, cmd: exec.Command(childBinary(w.t)), ended: make(chan struct{}), lines: make(chan []byte, 4)}
	c.cmd.Env = append(append(os.Environ(), childEnv+"="+string(text)), env...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go c.read(out)
	w.t.Cleanup(func() {
		if !w.t.Failed() {
			c.kill()
			return
		}
		// Where it stands is what a process that hangs can still say.
		c.signal(syscall.SIGQUIT)
		select {
		case <-c.ended:
		case <-time.After(10 * time.Second):
			c.kill()
		}
		w.t.Logf("%s (%v) said:\n%s", name, c.err, tail(c.stderr.String(), 60_000))
	})
	return c
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (c *child) read(out io.Reader) {
	defer close(c.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Bytes()
		c.mu.Lock()
		if bytes.Equal(line, []byte(`"ready"`)) {
			c.ready = true
		} else if bytes.HasPrefix(line, []byte(`{"Ready"`)) {
			c.status = ingest.Status{}
			_ = json.Unmarshal(line, &c.status)
		} else if c.lines != nil {
			c.lines <- bytes.Clone(line)
		}
		c.mu.Unlock()
	}
	c.err = c.cmd.Wait()
}

func (c *child) await(t testing.TB, _ string) {
	t.Helper()
	testenv.Eventually(t, 60*time.Second, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ready {
			return nil
		}
		select {
		case <-c.ended:
			t.Fatalf("%s ended: %v\n%s", c.name, c.err, tail(c.stderr.String(), 2000))
		default:
		}
		return errors.New("not ready")
	})
}

func (c *child) state() ingest.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// kill is kill -9, and waits for the end.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.ended
}

// stop is SIGTERM; the process must end well, soon.
func (c *child) stop(t testing.TB) {
	t.Helper()
	c.signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s does not stop\n%s", c.name, tail(c.stderr.String(), 4000))
	}
	if c.err != nil {
		t.Fatalf("%s: %v\n%s", c.name, c.err, tail(c.stderr.String(), 4000))
	}
}

// produce sends the next n events and waits until the broker has them.
func (w *world) produce(n int) {
	w.t.Helper()
	if err := w.send(w.t.Context(), n); err != nil {
		w.t.Fatal(err)
	}
}

// send produces the next n events. Those that fail may be stored or not.
func (w *world) send(ctx context.Context, n int) error {
	w.mu.Lock()
	from := w.next
	w.next += int64(n)
	w.mu.Unlock()
	byTopic := map[string][]stream.Message{}
	numbers := map[string][]int64{}
	for i := from; i < from+int64(n); i++ {
		m := eventOf(w.seed, i)
		topic := topicOf(m.kind)
		byTopic[topic] = append(byTopic[topic], m.message(i))
		numbers[topic] = append(numbers[topic], i)
	}
	var errs []error
	for topic, msgs := range byTopic {
		err := w.producer.Produce(ctx, topic, msgs...)
		var some *stream.ProduceError
		for i, number := range numbers[topic] {
			if err == nil || errors.As(err, &some) && some.Errs[i] == nil {
				w.mu.Lock()
				w.acked.add(number)
				w.mu.Unlock()
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// await waits until the consumer has stored everything that the broker has.
func (w *world) await(c *child, limit time.Duration) { w.awaitAll(limit, c) }

// awaitAll waits until the consumers together have stored everything.
func (w *world) awaitAll(limit time.Duration, cs ...*child) {
	w.t.Helper()
	testenv.Eventually(w.t, limit, func() error {
		var states []ingest.Status
		for _, c := range cs {
			select {
			case <-c.ended:
				w.t.Fatalf("%s ended: %v\n%s", c.name, c.err, tail(c.stderr.String(), 4000))
			default:
			}
			states = append(states, c.state())
		}
		return w.behind(states...)
	})
}

// behind says how far the consumers are from the broker's ends.
func (w *world) behind(states ...ingest.Status) error {
	ends, err := w.ends()
	if err != nil {
		return err
	}
	missing := []string{}
	for tp, end := range ends {
		at, why := int64(-1), "unassigned"
		for _, s := range states {
			for _, p := range s.Partitions {
				if p.Topic == tp.Topic && p.Partition == tp.Partition {
					at, why = max(at, p.Position), p.Waiting
				}
			}
		}
		if end > 0 && at < end {
			missing = append(missing, fmt.Sprintf("%v at %d of %d %s", tp, at, end, why))
		}
	}
	if len(missing) > 0 {
		return errors.New(strings.Join(missing, "; "))
	}
	return nil
}

func (w *world) ends() (map[stream.TopicPartition]int64, error) {
	var tps []stream.TopicPartition
	for _, k := range kinds() {
		for p := range w.partitions {
			tps = append(tps, stream.TopicPartition{Topic: topicOf(k), Partition: int32(p)})
		}
	}
	offsets, err := w.client.Offsets(w.t.Context(), tps...)
	out := map[stream.TopicPartition]int64{}
	for tp, o := range offsets {
		out[tp] = o.Last
	}
	return out, err
}

// registry folds the broker's registry log.
func (w *world) registry() *registry.Registry {
	w.t.Helper()
	log, err := w.client.OpenLog(w.t.Context(), "kedge.registry")
	if err != nil {
		w.t.Fatal(err)
	}
	reg, err := registry.Open(w.t.Context(), log)
	if err != nil {
		w.t.Fatal(err)
	}
	return reg
}

// maxRSS is the peak memory of an ended process, in KiB.
func maxRSS(cmd *exec.Cmd) int64 {
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
}
