package broker

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxDenied bounds what is told of one connection: a client asks for the same
// again and again.
const maxDenied = 100

// denials is what one connection was told that it may not, once each.
type denials map[string]bool

// resource is what a request names, and what it takes.
type resource struct {
	kind, name string
	write      bool // a topic: to produce to it
	whole      bool // it takes rights over the broker itself
}

// notes tells the client's own ear what it asks for and may not have. kfake
// decides and answers; it has no such ear.
func (s *session) notes(kind, version int16, frame []byte) {
	c := s.client
	if c == nil || c.All || c.Denied == nil || len(s.denied) >= maxDenied {
		return
	}
	req := kmsg.RequestForKey(kind)
	if _, _, err := request(frame, req, version); err != nil {
		return // kfake says so
	}
	for _, r := range resources(req) {
		if r.name == "" || c.has(r) {
			continue
		}
		what := kmsg.NameForKey(kind)
		if key := what + " " + r.kind + " " + r.name; !s.denied[key] && len(s.denied) < maxDenied {
			if s.denied == nil {
				s.denied = denials{}
			}
			s.denied[key] = true
			c.Denied(what, r.kind+" "+r.name, r.write)
		}
	}
}

// has reports whether a client may do something, as [Broker.grant] lets it.
func (c *Client) has(r resource) bool {
	switch {
	case r.whole:
		return false
	case r.kind != "topic":
		return slices.ContainsFunc(c.Prefix, func(p string) bool { return strings.HasPrefix(r.name, p) })
	case r.write:
		return slices.Contains(c.Write, r.name)
	}
	return slices.Contains(c.Read, r.name) || slices.Contains(c.Write, r.name)
}

// named are the kinds of requests that name what they are about.
func named(kind int16) bool {
	switch kmsg.Key(kind) {
	case kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata, kmsg.JoinGroup, kmsg.OffsetCommit, kmsg.OffsetFetch,
		kmsg.InitProducerID, kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.DeleteRecords, kmsg.DeleteGroups:
		return true
	}
	return false
}

// resources are what a request names. Newer clients name topics by ids, which
// they have learned by their names.
func resources(req kmsg.Request) (out []resource) {
	add := func(kind, name string) { out = append(out, resource{kind: kind, name: name}) }
	whole := func(name string) { out = append(out, resource{kind: "topic", name: name, whole: true}) }
	switch r := req.(type) {
	case *kmsg.ProduceRequest:
		for _, t := range r.Topics {
			out = append(out, resource{kind: "topic", name: t.Topic, write: true})
		}
	case *kmsg.FetchRequest:
		for _, t := range r.Topics {
			add("topic", t.Topic)
		}
	case *kmsg.ListOffsetsRequest:
		for _, t := range r.Topics {
			add("topic", t.Topic)
		}
	case *kmsg.MetadataRequest:
		for _, t := range r.Topics {
			if t.Topic != nil {
				add("topic", *t.Topic)
			}
		}
	case *kmsg.JoinGroupRequest:
		add("group", r.Group)
	case *kmsg.OffsetCommitRequest:
		add("group", r.Group)
	case *kmsg.OffsetFetchRequest:
		add("group", r.Group)
		for _, g := range r.Groups {
			add("group", g.Group)
		}
	case *kmsg.InitProducerIDRequest:
		if r.TransactionalID != nil {
			add("transaction", *r.TransactionalID)
		}
	case *kmsg.CreateTopicsRequest:
		for _, t := range r.Topics {
			whole(t.Topic)
		}
	case *kmsg.DeleteTopicsRequest:
		for _, t := range r.TopicNames {
			whole(t)
		}
	case *kmsg.DeleteRecordsRequest:
		for _, t := range r.Topics {
			whole(t.Topic)
		}
	case *kmsg.DeleteGroupsRequest:
		for _, g := range r.Groups {
			out = append(out, resource{kind: "group", name: g, whole: true})
		}
	}
	return out
}
