package stream

import (
	"fmt"
	"math/rand/v2"
	"testing"

	kafka "github.com/segmentio/kafka-go"
)

// TestSpread deals random topics to random members and checks what a deal
// must be, whoever makes it: every wanted partition has one owner, who wants
// it, and equal members have equal shares.
func TestSpread(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 500 {
		var topics []string
		var partitions []kafka.Partition
		for i := range 1 + r.IntN(5) {
			topics = append(topics, fmt.Sprint("t", i))
			for p := range 1 + r.IntN(7) {
				partitions = append(partitions, kafka.Partition{Topic: topics[i], ID: p})
			}
		}
		var members []kafka.GroupMember
		same := r.IntN(3) > 0
		for i := range 1 + r.IntN(8) {
			m := kafka.GroupMember{ID: fmt.Sprint("m", i), Topics: topics}
			if !same {
				m.Topics = topics[:1+r.IntN(len(topics))]
			}
			members = append(members, m)
		}
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		r.Shuffle(len(partitions), func(i, j int) { partitions[i], partitions[j] = partitions[j], partitions[i] })
		checkDeal(t, members, partitions, same)
	}
}

func checkDeal(t *testing.T, members []kafka.GroupMember, partitions []kafka.Partition, same bool) {
	t.Helper()
	deal := spread{}.AssignGroups(members, partitions)
	owners := map[TopicPartition][]string{}
	total, perTopic := map[string]int{}, map[string]map[string]int{}
	for _, m := range members {
		for topic, ps := range deal[m.ID] {
			for _, p := range ps {
				tp := TopicPartition{topic, int32(p)}
				owners[tp] = append(owners[tp], m.ID)
				total[m.ID]++
				if perTopic[topic] == nil {
					perTopic[topic] = map[string]int{}
				}
				perTopic[topic][m.ID]++
			}
		}
	}
	for _, p := range partitions {
		wanted := 0
		for _, m := range members {
			for _, topic := range m.Topics {
				if topic == p.Topic {
					wanted++
				}
			}
		}
		tp := TopicPartition{p.Topic, int32(p.ID)}
		if n := len(owners[tp]); n != min(wanted, 1) {
			t.Fatalf("%v has owners %v, %d members want it", tp, owners[tp], wanted)
		}
	}
	if !same {
		return
	}
	uneven := func(counts map[string]int) bool {
		low, high := 1<<30, 0
		for _, m := range members {
			low, high = min(low, counts[m.ID]), max(high, counts[m.ID])
		}
		return high-low > 1
	}
	if uneven(total) {
		t.Fatalf("%d members, %d partitions: uneven in total: %v", len(members), len(partitions), total)
	}
	for topic, counts := range perTopic {
		if uneven(counts) {
			t.Fatalf("%s is uneven: %v", topic, counts)
		}
	}
}
