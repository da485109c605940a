package app

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/trainer"
)

// Erasure is an entity's end: its values leave online tables, the store and the
// embedded broker's log; records about it that come later are refused by a keyed
// hash; and a certificate says what was there and is there now. It is the
// entity's delete ([features.Deleter]), and what that leaves because it is needed
// for late rows: with the hash, it no longer is.

// ErasureCertificate says what an erasure did, and names nobody.
type ErasureCertificate struct {
	ID        string             `json:"id" doc:"Of the definition that refuses the entity from now on"`
	Time      time.Time          `json:"time"`
	Who       string             `json:"who"`
	Namespace string             `json:"namespace"`
	Keys      []string           `json:"keys" doc:"Names of the parts of its key"`
	Hash      string             `json:"hash" doc:"Keyed hash of their values"`
	Views     []features.Erasure `json:"views" doc:"Online tables that it left, with the keys that got a tombstone"`
	Tables    []store.Forgotten  `json:"tables" doc:"Rows about it before and after"`
	Logs      []ErasedLog        `json:"logs" doc:"Partitions of the embedded broker whose records were removed from the disk"`
	Outside   []OutsideLog       `json:"outside" doc:"Logs that are not Kedge's to remove from"`
	Unerased  []store.Outside    `json:"outside_tables,omitempty" doc:"Tables outside Kedge that hold rows about it and are read by views: their owners have to remove those"`
	Retrain   []RetrainDue       `json:"retrain_due" doc:"Versions of models that learnt from its rows, or may have"`
	SHA256    string             `json:"sha256" doc:"Of this document with empty sha256 and mac; the registry keeps it"`
	MAC       string             `json:"mac" doc:"HMAC-SHA-256 of that with the installation's erasure key"`
}

// ErasedLog is one partition.
type ErasedLog struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Removed   int64  `json:"removed" doc:"Records, of everybody: they are stored in tables"`
	From      int64  `json:"from" doc:"The first offset that is left"`
}

// OutsideLog is a topic that its own retention has to clear.
type OutsideLog struct {
	Topic string    `json:"topic"`
	Until time.Time `json:"until,omitzero" doc:"When the last record about the entity is gone by retention; none: its owner decides"`
}

// RetrainDue is a version of a model.
type RetrainDue struct {
	Model   string `json:"model"`
	Version string `json:"version"`
	Stage   string `json:"stage"`
	Reason  string `json:"reason"`
}

// erasureWait is how long ingest may take to store what the log holds.
const erasureWait = 2 * time.Minute

// erasureKeyFile has the key of erased entities' hashes.
const erasureKeyFile = "erasure.key"

// erasureKey reads the key, or makes one.
func (a *App) erasureKey() error {
	if a.cfg.Erasure.Key != "" {
		return nil
	}
	file := filepath.Join(a.cfg.DataDir, erasureKeyFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(rand.Text() + rand.Text())
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("erasure key: %w", err)
	}
	a.cfg.Erasure.Key = Secret(strings.TrimSpace(string(b)))
	return nil
}

func (a *App) erasureRoutes(api *web.API) {
	web.Handle(api, huma.Operation{
		OperationID: "erase", Method: http.MethodPost, Path: "/v1/erasures", Summary: "Erase an entity for good, and certify it", Tags: []string{"features"},
		Description: "Removes it from online tables, the store and the embedded broker's log, and refuses what is sent of it from now on. The answer is the certificate. It may be asked again: what was cut off goes on.",
	}, deleteError, func(ctx context.Context, in *struct{ Body EntityDelete }) (*struct{ Body ErasureCertificate }, error) {
		c, err := a.erase(ctx, auth.From(ctx), in.Body.Entity)
		return &struct{ Body ErasureCertificate }{c}, err
	})
}

// erase does it all, in the order in which nothing comes back: first the
// refusal, then what is there.
func (a *App) erase(ctx context.Context, c auth.Caller, entity map[string]string) (ErasureCertificate, error) {
	for name, value := range entity { // nothing is what every row without a value has, and what any text holds
		if strings.TrimSpace(name) == "" || strings.TrimSpace(value) == "" {
			return ErasureCertificate{}, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "erase: the part %.70q of the entity is %.70q: both are to say something", name, value)
		}
	}
	ns := c.Namespace
	out := ErasureCertificate{Time: time.Now().UTC().Truncate(time.Second), Who: c.Subject, Namespace: ns, Keys: slices.Sorted(maps.Keys(entity)),
		Hash: event.ErasureHash([]byte(a.cfg.Erasure.Key), ns, entity), Views: []features.Erasure{}, Logs: []ErasedLog{}}
	out.ID = "erased-" + out.Hash[:16]
	if err := a.refuseErased(ctx, &out); err != nil {
		return out, err
	}
	topics := a.deadLetterTopics(ns)
	if err := a.awaitLogs(ctx, ns); err != nil {
		return out, err
	}
	held, err := a.store.Holds(ctx, ns, entity, topics)
	if err != nil {
		return out, err
	}
	views, err := a.features.deleter.Delete(ctx, ns, entity, erasureWait)
	if err != nil && !errors.Is(err, features.ErrUnknown) {
		return out, err
	}
	out.Views = append(out.Views, views...)
	if err := a.eraseLogs(ctx, ns, &out); err != nil {
		return out, err
	}
	forget := func() (err error) {
		out.Tables, err = a.store.Forget(ctx, ns, entity, topics)
		return err
	}
	if a.drift != nil { // monitors remember categories, and would write them down again
		err = a.drift.Anew(ctx, forget)
	} else {
		err = forget()
	}
	if err != nil {
		return out, err
	}
	for i, t := range out.Tables {
		if at := slices.IndexFunc(held, func(h store.Forgotten) bool { return h.Table == t.Table }); at >= 0 {
			out.Tables[i].Before = held[at].Before
		}
	}
	if out.Unerased, err = a.store.HoldsOutside(ctx, ns, entity); err != nil {
		return out, err
	}
	out.Outside = a.outsideLogs(ns, out.Time)
	out.Retrain = a.retrainDue(ns, out.Tables)
	if err := out.seal([]byte(a.cfg.Erasure.Key)); err != nil {
		return out, err
	}
	return out, a.refuseErased(ctx, &out)
}

// refuseErased writes the definition that refuses the entity, with the
// certificate's digest once there is one.
func (a *App) refuseErased(ctx context.Context, out *ErasureCertificate) error {
	spec, err := json.Marshal(event.ErasureSpec{Keys: out.Keys, Hash: out.Hash, Certificate: out.SHA256})
	if err != nil {
		return err
	}
	live, _ := a.registry.State().Get(event.ErasureKind, out.Namespace, out.ID)
	if string(live.Spec) == string(spec) {
		return nil
	}
	_, err = a.registry.Apply(ctx, registry.Entry{Kind: event.ErasureKind, Namespace: out.Namespace, Name: out.ID, Op: registry.Put, Expect: live.Version, Spec: spec, Who: out.Who, Why: "erased"})
	if err == nil {
		auth.Changed(ctx, event.ErasureKind+" "+out.ID, live.Spec, spec)
	}
	return err
}

// seal adds the digests.
func (c *ErasureCertificate) seal(key []byte) error {
	c.SHA256, c.MAC = "", ""
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sum, mac := sha256.Sum256(b), hmac.New(sha256.New, key)
	mac.Write(b)
	c.SHA256, c.MAC = hex.EncodeToString(sum[:]), hex.EncodeToString(mac.Sum(nil))
	return nil
}

// deadLetterTopics are those whose dead letters are a namespace's.
func (a *App) deadLetterTopics(ns string) []string {
	return append(a.eventTopics(ns), a.sourceTopics(ns)...)
}

// eventTopics are Kedge's own topics with a namespace's events: those that are
// sent, and the pairs of its sources.
func (a *App) eventTopics(ns string) []string {
	out := []string{TopicName(ns, event.Features), TopicName(ns, event.Predictions), TopicName(ns, event.Labels)}
	for _, d := range a.registry.State().List(source.Kind, ns) {
		if spec, err := source.ParseDefinition(d.Spec); err == nil && spec.Pair != nil {
			out = append(out, source.PairsTopic(ns, d.Name))
		}
	}
	return out
}

// awaitLogs waits until what a namespace's logs hold now is in the store.
func (a *App) awaitLogs(ctx context.Context, ns string) error {
	ctx, cancel := context.WithTimeout(ctx, erasureWait)
	defer cancel()
	for _, topic := range a.eventTopics(ns) {
		ends, err := a.ends(ctx, topic)
		if err != nil {
			return err
		}
		for {
			stored, err := a.store.LatestOffsets(ctx, topic, len(ends))
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(slices.Collect(maps.Keys(ends)), func(p int32) bool { return stored[p] < ends[p].Last && ends[p].Last > 0 }) {
				break
			}
			if err := sleepUntil(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("%s: %w", topic, features.ErrBehind)
			}
		}
	}
	return nil
}

func (a *App) ends(ctx context.Context, topic string) (map[int32]stream.Offsets, error) {
	n, err := a.client.Partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	var tps []stream.TopicPartition
	for p := range n[topic] {
		tps = append(tps, stream.TopicPartition{Topic: topic, Partition: int32(p)})
	}
	offsets, err := a.client.Offsets(ctx, tps...)
	out := map[int32]stream.Offsets{}
	for tp, o := range offsets {
		out[tp.Partition] = o
	}
	return out, err
}

// eraseLogs removes what the embedded broker keeps of a namespace's events and
// served vectors: all of it is in tables, or of no use any more.
func (a *App) eraseLogs(ctx context.Context, ns string, out *ErasureCertificate) error {
	if a.broker == nil {
		return nil
	}
	for _, topic := range append(a.eventTopics(ns), features.ServedTopic(ns)) {
		before, err := a.ends(ctx, topic)
		if err != nil {
			return err
		}
		cut, err := a.broker.Forget(topic, func() (map[int32]int64, error) { return a.fillLog(ctx, ns, topic, len(before)) })
		if err != nil {
			return fmt.Errorf("remove records of %s: %w", topic, err)
		}
		for _, p := range slices.Sorted(maps.Keys(cut)) {
			out.Logs = append(out.Logs, ErasedLog{topic, p, max(cut[p]-before[p].First, 0), cut[p]})
		}
	}
	return nil
}

// fillLog writes a record that says nothing to every partition and returns
// their offsets, when everything up to them is stored.
func (a *App) fillLog(ctx context.Context, ns, topic string, partitions int) (map[int32]int64, error) {
	var msgs []stream.Message
	met := map[int32]bool{}
	for n := 0; len(met) < partitions; n++ {
		key := []byte("erased-" + strconv.Itoa(n))
		if p := stream.KeyPartition(key, partitions); !met[p] {
			met[p] = true
			msgs = append(msgs, stream.Message{Key: key, Value: []byte(event.ErasedRecord)})
		}
	}
	if len(msgs) == 0 {
		return nil, nil
	}
	if err := a.producer.Produce(ctx, topic, msgs...); err != nil {
		return nil, err
	}
	ends, err := a.ends(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := map[int32]int64{}
	for p, o := range ends {
		out[p] = o.Last - 1
	}
	return out, a.awaitLogs(ctx, ns)
}

// outsideLogs are the topics that only retention clears.
func (a *App) outsideLogs(ns string, now time.Time) []OutsideLog {
	out := []OutsideLog{}
	for _, topic := range a.deadLetterTopics(ns) {
		switch own := strings.HasPrefix(topic, "kedge."); {
		case own && a.broker == nil:
			out = append(out, OutsideLog{topic, now.Add(time.Duration(a.cfg.Kafka.Retention))})
		case !own:
			out = append(out, OutsideLog{Topic: topic})
		}
	}
	return out
}

// retrainDue lists the versions of models whose training data name a view or
// model that had rows about the entity. Who of the rows' entities was in the
// data is not kept, so they may have learnt from it.
func (a *App) retrainDue(ns string, tables []store.Forgotten) []RetrainDue {
	out := []RetrainDue{}
	var subjects []string
	for _, t := range tables {
		if t.Subject != "" && t.Before > 0 && !slices.Contains(subjects, t.Subject) {
			subjects = append(subjects, t.Subject)
		}
	}
	if len(subjects) == 0 {
		return out
	}
	root, err := os.OpenRoot(a.dir.Sub(artifactsDir))
	if err != nil {
		root = nil // then nothing is known of any version, and each is named
	} else {
		defer root.Close() //nolint:errcheck // it was only read
	}
	for _, d := range a.registry.State().List(trainer.ModelKind, ns) {
		spec, err := trainer.ParseModel(d.Spec)
		if err != nil {
			continue
		}
		for _, v := range spec.Versions {
			if why := learntFrom(root, v, subjects); why != "" {
				out = append(out, RetrainDue{d.Name, v.Version, v.Stage, why})
			}
		}
	}
	return out
}

// learntFrom says why a version may have learnt from one of the subjects; "" if
// it did not.
func learntFrom(root *os.Root, v trainer.ModelVersion, subjects []string) string {
	if v.Artifact == "" {
		return "its artefact is not Kedge's: what it learnt from is not known"
	}
	if root == nil {
		return "the artefacts cannot be read: what it learnt from is not known"
	}
	a, err := model.Load(root, v.Artifact, model.DefaultLimits())
	if err != nil {
		return "its artefact cannot be read: what it learnt from is not known"
	}
	text, err := json.Marshal(a.Card.Data)
	if err != nil {
		return err.Error()
	}
	words := strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(`"':,/@ {}[]()`, r) })
	for _, s := range subjects {
		if slices.Contains(words, s) {
			return "its training data are of " + s
		}
	}
	return ""
}
