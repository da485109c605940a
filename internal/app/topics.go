package app

import (
	"fmt"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/stream"
)

// RegistryTopic is the log of definitions.
const RegistryTopic = "kedge.registry"

// TopicName is the topic of one stream of a namespace.
func TopicName(namespace string, kind event.Kind) string {
	return "kedge." + namespace + "." + kind.String()
}

// Topic is a topic that Kedge needs, with what each side must be allowed to do
// with it.
type Topic struct {
	Spec    stream.TopicSpec
	Purpose string
	ACLs    []ACL
}

// ACL is one permission on a Kafka resource.
type ACL struct {
	Principal string // "kedge", or "producers": whoever sends events
	Operation string
	Resource  string
}

// Topics lists the topics that this configuration needs, the data topics with
// equal partition counts, so that a label meets its prediction.
func (c *Config) Topics() []Topic {
	log := stream.LogTopic(RegistryTopic)
	if !c.EmbeddedBroker() {
		log.Replication = c.Kafka.ReplicationFactor
	}
	journal := log
	journal.Name = AuditTopic
	out := []Topic{
		{Spec: log, Purpose: "definitions, kept for ever", ACLs: acls(RegistryTopic, "kedge", "Describe", "DescribeConfigs", "Read", "Write", "Create")},
		{Spec: journal, Purpose: "who changed what and who was refused, kept for ever", ACLs: acls(AuditTopic, "kedge", "Describe", "DescribeConfigs", "Read", "Write", "Create")},
	}
	out = append(out, c.driftTopics()...)
	return append(out, c.dataTopics(c.Namespace)...)
}

// dataTopics are those that a namespace's events come by.
func (c *Config) dataTopics(namespace string) []Topic {
	var out []Topic
	for _, kind := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		name := TopicName(namespace, kind)
		spec := stream.TopicSpec{Name: name, Partitions: c.Kafka.Partitions, Config: map[string]string{
			"retention.ms":           strconv.FormatInt(time.Duration(c.Kafka.Retention).Milliseconds(), 10),
			"retention.bytes":        strconv.FormatInt(int64(c.Kafka.RetentionSize), 10),
			"message.timestamp.type": "LogAppendTime",
		}}
		if !c.EmbeddedBroker() {
			spec.Replication = c.Kafka.ReplicationFactor
		}
		out = append(out, Topic{Spec: spec, Purpose: kind.String() + " of namespace " + namespace,
			ACLs: append(acls(name, "kedge", "Describe", "DescribeConfigs", "Read", "Write", "Create"), acls(name, "producers", "Describe", "Write")...)})
	}
	served := out[0].Spec
	served.Name = features.ServedTopic(namespace)
	return append(out, Topic{Spec: served, Purpose: "samples of served feature vectors, namespace " + namespace,
		ACLs: acls(served.Name, "kedge", "Describe", "DescribeConfigs", "Read", "Write", "Create")})
}

// GroupACLs are the permissions beside those on topics.
func (c *Config) GroupACLs() []ACL {
	return []ACL{
		{"kedge", "Describe", "Group:" + c.Ingest.Group},
		{"kedge", "Read", "Group:" + c.Ingest.Group},
		{"kedge", "Describe", "Group:" + driftGroup},
		{"kedge", "Read", "Group:" + driftGroup},
		{"kedge", "Describe", "Group:" + conversionGroup},
		{"kedge", "Read", "Group:" + conversionGroup},
		{"kedge", "Describe", "Group:" + alertsGroup},
		{"kedge", "Read", "Group:" + alertsGroup},
		{"kedge", "Describe", "Group:" + pairsGroup},
		{"kedge", "Read", "Group:" + pairsGroup},
		{"kedge", "Describe", "Cluster:kafka-cluster"},
	}
}

func acls(topic, principal string, ops ...string) []ACL {
	var out []ACL
	for _, op := range ops {
		out = append(out, ACL{principal, op, fmt.Sprintf("Topic:%s", topic)})
	}
	return out
}
