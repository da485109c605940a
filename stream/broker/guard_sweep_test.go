package broker_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill gives every member of a request something: theirs, in the places of
// names, and one element in every list.
func fill(v reflect.Value, name string, id [16]byte, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(theirName(name))
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		fill(v.Elem(), name, id, depth)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 || depth > 6 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), name, id, depth+1)
	case reflect.Array:
		if v.Type() == reflect.TypeFor[[16]byte]() && strings.Contains(name, "Topic") {
			v.Set(reflect.ValueOf(id))
		}
	case reflect.Struct:
		if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "Version" && f.Name != "UnknownTags" {
				fill(v.Field(i), f.Name, id, depth+1)
			}
		}
	case reflect.Int32:
		if strings.Contains(name, "MaxBytes") || strings.Contains(name, "Limit") {
			v.SetInt(1 << 20)
		}
	default:
	}
}

func theirName(member string) string {
	switch {
	case strings.Contains(member, "Group"), strings.Contains(member, "Transaction"), strings.Contains(member, "Coordinator"):
		return "theirs.group"
	case strings.Contains(member, "Mechanism"):
		return "PLAIN"
	}
	return "theirs"
}

// sweep sends a request of every kind, once naming all that is theirs and once
// naming nothing, and returns the answers that show something of it.
func sweep(t *testing.T, g *guarded, who string, id [16]byte) (shown []string, sent int) {
	t.Helper()
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		if k := kmsg.Key(key); k == kmsg.SASLHandshake || k == kmsg.SASLAuthenticate || k == kmsg.LeaveGroup || k == kmsg.DeleteTopics || k == kmsg.DeleteGroups || k == kmsg.DeleteRecords {
			if who == "root" {
				continue // it would be allowed, and end what is planted
			}
		}
		for _, full := range []bool{true, false} {
			req := kmsg.RequestForKey(key)
			if req == nil {
				continue
			}
			if full {
				fill(reflect.ValueOf(req).Elem(), "", id, 0)
			}
			c := g.as(t, user(who), kgo.MetadataMinAge(10*time.Millisecond))
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			res, err := c.Broker(0).Request(ctx, req) // some wait for others, some end the connection
			cancel()
			c.Close()
			sent++
			if err != nil {
				continue
			}
			text := fmt.Sprintf("%+v %s", res, res.AppendTo(nil))
			for _, planted := range []string{"planted in theirs", "theirs-client"} {
				if strings.Contains(text, planted) {
					shown = append(shown, kmsg.NameForKey(key))
				}
			}
			if !full && strings.Contains(text, "theirs") {
				shown = append(shown, kmsg.NameForKey(key)+" unasked")
			}
		}
	}
	return shown, sent
}

// TestGuardedBrokerHidesTheRest sends every kind of request of the protocol as
// somebody else. The same as somebody who may do everything finds what is
// planted.
func TestGuardedBrokerHidesTheRest(t *testing.T) {
	g := startGuarded(t, t.TempDir())
	g.topics(t)
	theirs := g.as(t, user("theirs"), kgo.ClientID("theirs-client"), kgo.ConsumeTopics("theirs"), kgo.ConsumerGroup("theirs.group"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if got := theirs.PollRecords(within(t, 20*time.Second), 1); got.NumRecords() != 1 {
		t.Fatalf("planted: %v", got.Err())
	}
	if err := theirs.CommitUncommittedOffsets(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(within(t, 20*time.Second), theirs)
	if err != nil || len(meta.Topics) != 1 {
		t.Fatal(meta, err)
	}
	before := state(t, g)
	shown, sent := sweep(t, g, "ours", meta.Topics[0].TopicID)
	if len(shown) > 0 {
		t.Errorf("shown: %v", shown)
	}
	if after := state(t, g); after != before {
		t.Errorf("something of theirs has changed:\n%s\n%s", before, after)
	}
	found, _ := sweep(t, g, "root", meta.Topics[0].TopicID)
	for _, want := range []string{"Fetch", "DescribeGroups", "Metadata unasked", "ListGroups unasked"} {
		if !strings.Contains(strings.Join(found, ","), want) {
			t.Errorf("the sweep is blind to %s; it sees %v", want, found)
		}
	}
	t.Logf("%d requests; somebody who may do everything is shown %v", sent, found)
}

// state is what there is of theirs.
func state(t *testing.T, g *guarded) string {
	t.Helper()
	root := g.as(t, user("root"))
	groups := kmsg.NewPtrDescribeGroupsRequest()
	groups.Groups = []string{"theirs.group"}
	members, err := groups.RequestWith(within(t, 20*time.Second), root)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(within(t, 20*time.Second), root)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%d topics, %d members", len(meta.Topics), len(members.Groups[0].Members))
	for _, at := range []int64{-2, -1} { // beginning, end
		req := kmsg.NewPtrListOffsetsRequest()
		topic, p := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
		p.Timestamp = at
		topic.Topic, topic.Partitions = "theirs", append(topic.Partitions, p)
		req.Topics = append(req.Topics, topic)
		res, err := req.RequestWith(within(t, 20*time.Second), root)
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf(", offset %d", res.Topics[0].Partitions[0].Offset)
	}
	return out
}
