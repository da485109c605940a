package stream

import (
	"cmp"
	"slices"

	kafka "github.com/segmentio/kafka-go"
)

// spread deals all partitions of all topics evenly over the members. The
// library's round robin begins anew with each topic, so that with three topics
// of two partitions each a third member would have nothing to do.
type spread struct{}

// ProtocolName is what members agree on; all must offer it.
func (spread) ProtocolName() string { return "kedge-spread" }

// UserData is empty: the deal depends on who is there alone.
func (spread) UserData() ([]byte, error) { return nil, nil }

// AssignGroups gives each partition to the member that has least of those that
// want its topic. Members with equal wishes differ by one partition at most, in
// total and in each topic.
func (spread) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	members, partitions = slices.Clone(members), slices.Clone(partitions)
	slices.SortFunc(members, func(a, b kafka.GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(partitions, func(a, b kafka.Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.ID, b.ID))
	})
	out, has := kafka.GroupMemberAssignments{}, make([]int, len(members))
	for _, m := range members {
		out[m.ID] = map[string][]int{}
	}
	for _, p := range partitions {
		least := -1
		for i, m := range members {
			if slices.Contains(m.Topics, p.Topic) && (least < 0 || has[i] < has[least]) {
				least = i
			}
		}
		if least < 0 {
			continue // nobody wants it
		}
		has[least]++
		id := members[least].ID
		out[id][p.Topic] = append(out[id][p.Topic], p.ID)
	}
	return out
}
