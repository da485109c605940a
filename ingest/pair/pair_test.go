package pair

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const twoTopics = `
topic: asked
pair: {topic: answered, id: id, wait: WAIT}
mapping:
  events:
  - {kind: predictions, model: m, version: {const: "1"}, id: request.id, time: request._time, inputs: [request.x], output: {score: response.y}}
`

const oneTopic = `
topic: both
pair: {id: id, request: x != nil, response: y != nil, wait: WAIT}
mapping:
  events:
  - {kind: predictions, model: m, version: {const: "1"}, id: request.id, time: request._time, inputs: [request.x], output: {score: response.y}}
`

// house is a broker's topics, a registry and a pairer that dies now and then.
type house struct {
	t        *testing.T
	client   *stream.Client
	producer *stream.Producer
	reg      *registry.Registry
	spec     *source.Definition
	name     string
	guards   guards
	sent     []string // what each half should be known by
	stop     func()
}

func openHouse(t *testing.T, addr, spec, name string, wait time.Duration) *house {
	t.Helper()
	c, err := stream.NewClient(stream.Config{Brokers: strings.Split(addr, ",")})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, client: c, producer: c.Producer(stream.ProducerConfig{}), name: name, stop: func() {}}
	text := strings.NewReplacer("WAIT", wait.String(), "asked", name+".asked", "answered", name+".answered", "both", name+".both").Replace(spec)
	if h.spec, err = source.ParseDefinition([]byte(text)); err != nil {
		t.Fatal(err)
	}
	specs := []stream.TopicSpec{{Name: "leases-" + name, Partitions: 1, Replication: 1}}
	for _, topic := range h.spec.Topics() {
		specs = append(specs, stream.TopicSpec{Name: topic, Partitions: 2, Replication: 1})
	}
	if err := c.EnsureTopics(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	if h.reg, err = registry.Open(t.Context(), memlog.New(nil)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.reg.Run(ctx) }()
	t.Cleanup(func() {
		h.stop()
		cancel()
		<-done
		h.producer.Close()
		c.Close()
	})
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.reg.Apply(t.Context(), registry.Entry{Kind: source.Kind, Namespace: "default", Name: name, Op: registry.Put, Spec: asJSON}); err != nil {
		t.Fatal(err)
	}
	return h
}

// start begins a pairer; what it holds in memory is lost when it stops.
func (h *house) start() *Pairer {
	h.t.Helper()
	h.stop()
	p, err := New(Config{Group: "pairs-" + h.name, Leases: "leases-" + h.name, MemoryBytes: 1 << 26, MaxRecord: 1 << 20, MaxDead: 1 << 16, Every: 10 * time.Millisecond,
		Topic: func(name string) stream.TopicSpec { return stream.TopicSpec{Name: name, Partitions: 1, Replication: 1} }}, h.client, h.reg, h.producer, telemetry.Discard())
	if err != nil {
		h.t.Fatal(err)
	}
	p.guards = h.guards
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
		h.stop = func() {}
	}
	return p
}

// send sends a half to any partition.
func (h *house) send(id string, response bool, partition int) {
	h.t.Helper()
	topics, text := h.spec.Topics(), fmt.Sprintf(`{"id":%q,"x":1}`, id)
	topic := topics[0]
	if response {
		topic, text = topics[len(topics)-1], fmt.Sprintf(`{"id":%q,"y":0.5}`, id)
	}
	if err := h.producer.Produce(h.t.Context(), topic, stream.Message{Value: []byte(text), Partition: int32(partition), Pinned: true}); err != nil {
		h.t.Fatal(err)
	}
	h.sent = append(h.sent, id)
}

// outcomes reads the pairs topic: kinds by half, and how many halves it is of.
func (h *house) outcomes() (kinds map[string][]string, halves int) {
	h.t.Helper()
	kinds = map[string][]string{}
	log := stream.TopicPartition{Topic: h.spec.Maps("default", h.name)}
	ends, err := h.client.Offsets(h.t.Context(), log)
	if err != nil || ends[log].Last == 0 {
		return kinds, 0
	}
	for b, err := range h.client.FetchRange(h.t.Context(), log, 0, ends[log].Last-1) {
		if err != nil {
			h.t.Fatal(err)
		}
		for i := range b.Records {
			r := &b.Records[i]
			kind := paired
			if reason, ok := r.Header(source.ReasonHeader); ok {
				kind = string(reason)
			} else if r.Value == nil {
				kind = duplicate
			}
			for name, value := range r.Headers {
				if string(name) == source.HalfHeader {
					kinds[string(value)] = append(kinds[string(value)], kind)
					halves++
				}
			}
		}
		b.Release()
	}
	return kinds, halves
}

// await waits until there are as many outcomes as halves.
func (h *house) await() map[string][]string {
	h.t.Helper()
	testenv.Eventually(h.t, 2*time.Minute, func() error {
		if _, n := h.outcomes(); n < len(h.sent) {
			return fmt.Errorf("%d of %d halves have an outcome", n, len(h.sent))
		}
		return nil
	})
	kinds, _ := h.outcomes()
	return kinds
}

// faults are the halves that have other than one outcome of the wanted kind.
func faults(kinds map[string][]string, want map[string]int) (out []string) {
	counts := map[string]int{}
	for at, list := range kinds {
		if len(list) != 1 {
			out = append(out, fmt.Sprintf("%s is %v", at, list))
		}
		counts[list[0]]++
	}
	for kind, n := range want {
		if counts[kind] != n {
			out = append(out, fmt.Sprintf("%d halves are %s, want %d", counts[kind], kind, n))
		}
	}
	return out
}

func testPairs(t *testing.T, addr string) {
	for name, spec := range map[string]string{"two": twoTopics, "one": oneTopic} {
		t.Run(name+" topics", func(t *testing.T) {
			h := openHouse(t, addr, spec, name, 24*time.Hour)
			for round := range 4 { // the process dies in between, with halves in memory and records under way
				h.start()
				for i := range 50 {
					id := fmt.Sprint(round, "-", i)
					h.send(id, i%2 == 0, i%2)
					if i%5 > 0 { // of the fifth the other half comes after the next crash
						h.send(id, i%2 != 0, i/2%2)
					}
					if round > 0 && i%5 == 0 {
						h.send(fmt.Sprint(round-1, "-", i), i%2 != 0, i/5%2)
					}
					if i%10 == 1 {
						h.send(id, i%2 != 0, 1) // once more
					}
				}
			}
			for i := range 10 {
				h.send(fmt.Sprint("3-", 5*i), 5*i%2 != 0, 0)
			}
			h.start()
			if f := faults(h.await(), map[string]int{paired: 400, duplicate: 20}); len(f) > 0 {
				t.Error(strings.Join(f, "\n"))
			}
		})
	}
}

// TestPairs holds that halves of one topic and of two are paired once each, and
// none is lost, while the process that does it dies again and again.
func TestPairs(t *testing.T) { testPairs(t, kafkatest.Embedded(t)) }

// TestTorturePairs is the same on a real Kafka.
func TestTorturePairs(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "make torture runs it: it starts a real Kafka")
	}
	testPairs(t, kafkatest.Start(t, 1).Addr())
}

// TestPairGuards: without looking back, and without holding its position for
// halves that wait, a process that follows one that died goes wrong; with both, the
// same does not.
func TestPairGuards(t *testing.T) {
	addr := kafkatest.Embedded(t)
	for name, c := range map[string]struct {
		guards guards
		fails  bool
	}{"both": {}, "noReadBack": {guards{noReadBack: true}, true}, "noHold": {guards{noHold: true}, true}} {
		t.Run(name, func(t *testing.T) {
			h := openHouse(t, addr, twoTopics, name, 2*time.Second)
			h.guards = c.guards
			h.send("waits", false, 0)
			for i := range 10 {
				h.send(fmt.Sprint(i), false, 0)
				h.send(fmt.Sprint(i), true, 0)
			}
			p := h.start()
			testenv.Eventually(t, time.Minute, func() error {
				if s := p.Statuses(); len(s) != 1 || s[0].Waiting != 1 {
					return fmt.Errorf("status %+v", s)
				}
				if _, n := h.outcomes(); n != 20 {
					return fmt.Errorf("%d outcomes", n)
				}
				tp := stream.TopicPartition{Topic: h.spec.Pair.Topic}
				at, err := h.client.Committed(t.Context(), "pairs-"+name, tp)
				if err == nil && at[tp].Offset != 10 {
					err = fmt.Errorf("the responses' position is %+v", at[tp])
				}
				return err
			})
			h.start()
			h.send("last", false, 0) // it is given up after what came before it in its partition
			last := fmt.Sprintf("%s/0/11", h.spec.Topic)
			var kinds map[string][]string
			testenv.Eventually(t, time.Minute, func() error {
				if kinds, _ = h.outcomes(); !slices.Equal(kinds[last], []string{string(event.ReasonUnpaired)}) {
					return fmt.Errorf("the last half is %v", kinds[last])
				}
				return nil
			})
			f := faults(kinds, map[string]int{paired: 20, string(event.ReasonUnpaired): 2})
			if (len(f) > 0) != c.fails {
				t.Errorf("faults: %q", f)
			}
		})
	}
}
