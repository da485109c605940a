package ingest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// The model: every event is a function of a number n, and what must become of
// it follows from n and from what stands before it in its partition. It is
// computed from the broker's log alone, by other code than the consumer's.

const (
	namespace = "t"
	window    = 2000 // offsets within which an id makes a duplicate
)

func topicOf(k event.Kind) string { return "kedge." + namespace + "." + k.String() }

func kinds() []event.Kind { return []event.Kind{event.Features, event.Predictions, event.Labels} }

// made is the event of a number, and its fate before duplicates.
type made struct {
	kind    event.Kind
	key     string
	value   []byte
	id      string
	subject string // view, model@version or model
	dead    bool
	packed  int // rows of a packed record; 0: one event as JSON
}

// row is one row of an event: its number, which no other row has, and its id.
func (m *made) row(i int, n int64) (number int64, id string) {
	if m.packed > 1 {
		return n + int64(i)<<40, fmt.Sprint(m.id, "/", i)
	}
	return n, m.id
}

// grown is how many columns the views have gained when event n is made: one
// whenever there are a tenth more events, the first after 150.
func grown(n int64) int { return int(math.Log(float64(n)/1500+1) / math.Log(1.1)) }

// eventOf makes event n. Definitions grow with n: a view gains columns, a column that began as integer becomes a float, a second model
// version with other inputs appears.
func eventOf(seed uint64, n int64) made {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	micros := 1_767_225_600_000_000 + n*250_000 - int64(r.IntN(50)/49)*40*86_400_000_000
	at := event.AppendTime(nil, micros)
	switch p := r.IntN(100); {
	case p < 55:
		return featureOf(r, n, string(at))
	case p < 85:
		return predictionOf(r, n, string(at), micros)
	default:
		return labelOf(r, n, string(at))
	}
}

func featureOf(r *rand.Rand, n int64, at string) made {
	m := made{kind: event.Features, subject: []string{"user", "item", "place"}[r.IntN(3)]}
	entity := fmt.Sprint("e", r.IntN(500))
	m.key = m.subject + entity
	number := strconv.FormatInt(n, 10)
	switch r.IntN(60) {
	case 0:
		if n > 500 { // a view's first event says that n is a number
			m.dead, number = true, `"not a number"`
		}
	case 1:
		m.dead, m.value = true, []byte(`{"view":"user","key":`)
		return m
	}
	m.id = idOf(r, "f", n)
	half := ""
	if n > 4000 {
		half = ".5"
	}
	m.value = fmt.Appendf(nil, `{"view":%q,"key":{"entity":%q},"event_time":"%s","values":{"n":%s,"amount":%d%s,"flag":%v,"note":null,"grown_%d":%d}%s}`,
		m.subject, entity, at, number, r.IntN(100), half, n%2 == 0, grown(n), n, m.idMember())
	return m
}

func predictionOf(r *rand.Rand, n int64, at string, micros int64) made {
	version, extra := "v1", ""
	if r.IntN(3) == 0 {
		version, extra = "v2", `,"channel":"web"`
	}
	m := made{kind: event.Predictions, subject: "m@" + version, key: fmt.Sprint("p-", r.IntN(1000)), id: idOf(r, "p", n)}
	if m.id == "" {
		m.id = fmt.Sprint("p-only-", n)
	}
	x := r.IntN(10)
	if r.IntN(4) == 0 {
		m.packed = 1 + r.IntN(6)
		m.value = m.pack(version, n, x, micros)
		return m
	}
	m.value = fmt.Appendf(nil, `{"model":"m","version":%q,"event_time":"%s","inputs":{"n":%d,"x":%d.25%s},"output":{"score":0.5}%s}`,
		version, at, n, x, extra, m.idMember())
	return m
}

// pack makes the record that serving makes of a request of several rows.
func (m *made) pack(version string, n int64, x int, micros int64) []byte {
	inputs := []string{"n", "x"}
	if version == "v2" {
		inputs = append(inputs, "channel")
	}
	p := event.NewPacker("m", version, inputs, event.OutputScore, 1, nil)
	b := p.Begin(nil, event.PackedRows{Count: m.packed, Numbered: m.packed > 1, ID: m.id}, &event.Prediction{EventTime: micros})
	b = p.Column(b, event.Int64, nil)
	for i := range m.packed {
		number, _ := m.row(i, n)
		b = binary.LittleEndian.AppendUint64(b, uint64(number))
	}
	b = p.Column(b, event.Float32, nil)
	for range m.packed {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)+0.25))
	}
	if version == "v2" {
		b = p.Column(b, event.String, nil)
		for range m.packed {
			b = event.AppendPackedText(b, []byte("web"))
		}
	}
	return p.Output(b, make([]float32, m.packed))
}

func labelOf(r *rand.Rand, n int64, at string) made {
	m := made{kind: event.Labels, subject: "m", key: fmt.Sprint("p-", r.IntN(1000)), id: idOf(r, "l", n)}
	m.value = fmt.Appendf(nil, `{"model":"m","prediction_id":"p-%d","label":%d,"event_time":"%s"%s}`, r.IntN(1000), n, at, m.idMember())
	return m
}

// idOf gives most events an id; some get one that an earlier event may have.
func idOf(r *rand.Rand, prefix string, n int64) string {
	switch r.IntN(10) {
	case 0:
		return fmt.Sprint(prefix, "-again-", r.IntN(200))
	case 1, 2:
		return ""
	}
	return fmt.Sprint(prefix, "-", n)
}

func (m *made) idMember() string {
	if m.id == "" {
		return ""
	}
	return fmt.Sprintf(`,"id":%q`, m.id)
}

func (m *made) message(n int64) stream.Message {
	return stream.Message{Key: []byte(m.key), Value: m.value, Headers: []stream.Header{{Name: "n", Value: binary.BigEndian.AppendUint64(nil, uint64(n))}}}
}

// numberOf reads the header that message writes.
func numberOf(header []byte) int64 { return int64(binary.BigEndian.Uint64(header)) }

// place is where rows are compared: sums over ten thousand offsets of one
// partition in one table.
type place struct {
	Table     string
	Partition int32
	Bucket    int64
}

const bucketSize = 10_000

// sums say which rows a place holds, as far as numbers can: a row that is
// lost, doubled or changed changes all three.
type sums struct {
	Count uint64
	Sum   uint64
	Xor   uint64
}

const hashN, hashOffset = 11400714819323198485, 14029467366897019727

func (s *sums) add(n, offset int64) {
	h := uint64(n)*hashN + uint64(offset)*hashOffset
	s.Count++
	s.Sum += h
	s.Xor ^= h
}

// truth is what must be stored.
type truth struct {
	places     map[place]*sums
	records    int64
	rows       int64
	dead       int64
	duplicates int64
	numbers    tally // how often each event stands in the log
}

// tally counts events by their numbers, up to 255 each.
type tally []uint8

func (t *tally) add(n int64) {
	if grow := int(n) + 1 - len(*t); grow > 0 {
		*t = append(*t, make([]uint8, grow)...)
	}
	(*t)[n]++
}

func (t tally) of(n int64) uint8 {
	if n >= int64(len(t)) {
		return 0
	}
	return t[n]
}

func (t tally) total() (sum int) {
	for _, n := range t {
		sum += int(n)
	}
	return sum
}

func (t *truth) add(table string, partition int32, n, offset int64) {
	p := place{table, partition, offset / bucketSize}
	if t.places[p] == nil {
		t.places[p] = &sums{}
	}
	t.places[p].add(n, offset)
}

// readTruth reads the whole of the broker's log and says what must be stored.
func readTruth(ctx context.Context, client *stream.Client, reg *registry.Registry, seed uint64, partitions int) (*truth, error) {
	catalog, err := catalogOf(reg.State())
	if err != nil {
		return nil, err
	}
	t := &truth{places: map[place]*sums{}}
	for _, k := range kinds() {
		for p := range partitions {
			if err := t.readPartition(ctx, client, catalog, seed, stream.TopicPartition{Topic: topicOf(k), Partition: int32(p)}); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

func catalogOf(s *registry.State) (*event.Catalog, error) {
	var defs []event.CatalogEntry
	for _, d := range s.List("", namespace) {
		defs = append(defs, event.CatalogEntry{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: d.Spec})
	}
	return event.NewCatalog(defs)
}

func (t *truth) readPartition(ctx context.Context, client *stream.Client, catalog *event.Catalog, seed uint64, tp stream.TopicPartition) error {
	o, err := client.Offsets(ctx, tp)
	if err != nil || o[tp].Last == o[tp].First {
		return err
	}
	stored := map[string]int64{} // id and subject → offset of the row that counts
	for b, err := range client.FetchRange(ctx, tp, o[tp].First, o[tp].Last-1) {
		if err != nil {
			return err
		}
		for i := range b.Records {
			h, _ := b.Records[i].Header("n")
			t.one(catalog, seed, tp, numberOf(h), b.Records[i].Offset, stored)
		}
		b.Release()
	}
	return nil
}

func (t *truth) one(catalog *event.Catalog, seed uint64, tp stream.TopicPartition, n, offset int64, stored map[string]int64) {
	m := eventOf(seed, n)
	t.records++
	t.numbers.add(n)
	if m.dead {
		t.dead++
		t.add("dead_letters/"+tp.Topic, tp.Partition, 0, offset)
		return
	}
	for i := range max(1, m.packed) {
		number, id := m.row(i, n)
		if id != "" {
			last, known := stored[m.subject+"/"+id]
			if known && offset-last <= window {
				t.duplicates++
				continue
			}
			stored[m.subject+"/"+id] = offset
		}
		t.rows++
		t.add(tableOf(catalog, &m), tp.Partition, number, offset)
	}
}

func tableOf(c *event.Catalog, m *made) string {
	var s *event.Schema
	switch m.kind {
	case event.Features:
		s = c.View(namespace, m.subject)
	case event.Predictions:
		s = c.Model(namespace, "m", m.subject[2:])
	case event.Labels:
		s = c.Labels(namespace, "m")
	}
	if s == nil {
		return "undefined " + m.subject
	}
	return s.Table()
}

// seedOf turns a test's name into its seed.
func seedOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}
