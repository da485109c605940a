package app

import (
	"context"
	"runtime"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
)

// Status is what `kedge status` shows.
type Status struct {
	Version    string            `json:"version"`
	Go         string            `json:"go"`
	Started    time.Time         `json:"started"`
	Uptime     string            `json:"uptime"`
	Namespace  string            `json:"namespace"`
	Roles      []string          `json:"roles"`
	DataDir    string            `json:"data_dir"`
	HTTP       string            `json:"http"`
	Kafka      []string          `json:"kafka"`
	Health     Health            `json:"health"`
	Partitions []PartitionStatus `json:"partitions" doc:"Of ingest in this process"`
}

// PartitionStatus is how ingest stands in one partition.
type PartitionStatus struct {
	Topic       string `json:"topic"`
	Partition   int32  `json:"partition"`
	Epoch       int32  `json:"epoch"`
	Position    int64  `json:"position" doc:"Everything before it is stored"`
	End         int64  `json:"end"`
	Lag         int64  `json:"lag"`
	Records     int64  `json:"records"`
	Rows        int64  `json:"rows"`
	DeadLetters int64  `json:"dead_letters"`
	Duplicates  int64  `json:"duplicates"`
	Missing     int64  `json:"missing"`
	Waiting     string `json:"waiting,omitempty"`
	Throttled   string `json:"throttled,omitempty" doc:"The quota that its namespace has used up"`
	LastError   string `json:"last_error,omitempty"`
}

func (a *App) status(ctx context.Context) Status {
	s := Status{
		Version: a.version, Go: runtime.Version(), Started: a.started.UTC(), Uptime: time.Since(a.started).Round(time.Second).String(),
		Namespace: a.cfg.Namespace, Roles: a.cfg.Roles, DataDir: a.dir.path, HTTP: a.Addr(), Kafka: a.brokers,
		Health: a.health(ctx), Partitions: []PartitionStatus{},
	}
	if a.consumer == nil {
		return s
	}
	c := auth.From(ctx)
	for _, p := range a.consumer.Status().Partitions {
		if !a.mayReadTopic(c, p.Topic) {
			continue
		}
		s.Partitions = append(s.Partitions, PartitionStatus{
			Topic: p.Topic, Partition: p.Partition, Epoch: p.Epoch, Position: p.Position, End: p.End, Lag: p.Lag,
			Records: p.Records, Rows: p.Rows, DeadLetters: p.DeadLetters, Duplicates: p.Duplicates, Missing: p.Missing,
			Waiting: p.Waiting, Throttled: p.Throttled, LastError: p.LastError,
		})
	}
	return s
}

// TopicList is what `kedge topics` shows.
type TopicList struct {
	Topics []TopicEntry `json:"topics"`
	ACLs   []ACL        `json:"acls" doc:"Permissions beside those on topics"`
}

// TopicEntry is one topic as it should be.
type TopicEntry struct {
	Name        string            `json:"name"`
	Purpose     string            `json:"purpose"`
	Partitions  int               `json:"partitions"`
	Replication int               `json:"replication_factor"`
	Config      map[string]string `json:"config"`
	ACLs        []ACL             `json:"acls"`
}

// TopicList lists what the configuration needs of Kafka.
func (c *Config) TopicList() TopicList {
	out := TopicList{ACLs: c.GroupACLs()}
	for _, t := range c.Topics() {
		out.Topics = append(out.Topics, TopicEntry{
			Name: t.Spec.Name, Purpose: t.Purpose, Partitions: t.Spec.Partitions, Replication: max(1, t.Spec.Replication), Config: t.Spec.Config, ACLs: t.ACLs,
		})
	}
	return out
}
