package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Forget removes, from the disk too, the records of a topic's partitions that
// lie below given offsets. The record at each offset has to be there: it stands
// in a segment of its own, so that the partition keeps its offsets. produce is
// called to write one to every partition, and returns where they stand.
func (b *Broker) Forget(topic string, produce func() (map[int32]int64, error)) (cut map[int32]int64, err error) {
	if b.cluster.TopicInfo(topic) == nil {
		return nil, nil
	}
	one := "1" // every batch begins a segment, as long as this is set
	if err := b.setSegmentBytes(topic, &one); err != nil {
		return nil, err
	}
	cut, err = produce()
	if err = errors.Join(err, b.setSegmentBytes(topic, nil)); err != nil {
		return nil, err
	}
	for p, at := range cut {
		if err := b.delete(topic, int(p), at); err != nil {
			return cut, err
		}
	}
	return cut, nil
}

// setSegmentBytes changes a topic's setting the way that writes it down, which
// is the protocol's; nil takes the topic's own away.
func (b *Broker) setSegmentBytes(topic string, value *string) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.SetVersion(1)
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value, c.Op = "segment.bytes", value, kmsg.IncrementalAlterConfigOpSet
	if value == nil {
		c.Op = kmsg.IncrementalAlterConfigOpDelete
	}
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	res := kmsg.NewPtrIncrementalAlterConfigsResponse()
	res.SetVersion(req.GetVersion())
	if err := b.ask(req, res); err != nil {
		return fmt.Errorf("set segment.bytes of %s: %w", topic, err)
	}
	for _, r := range res.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("set segment.bytes of %s: %w", topic, err)
		}
	}
	return nil
}

// ask sends one request over a connection of its own.
func (b *Broker) ask(req kmsg.Request, res kmsg.Response) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := b.listener.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer was read, or there is another error
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if user, password := b.Credentials(); user != "" {
		if err := authenticate(conn, user, password); err != nil {
			return err
		}
	}
	return exchange(conn, req, res)
}

// authenticate says who asks, over SASL/PLAIN.
func authenticate(conn net.Conn, user, password string) error {
	hello, heard := kmsg.NewPtrSASLHandshakeRequest(), kmsg.NewPtrSASLHandshakeResponse()
	hello.Mechanism = "PLAIN"
	hello.SetVersion(1)
	heard.SetVersion(1)
	if err := exchange(conn, hello, heard); err != nil {
		return err
	}
	proof, proved := kmsg.NewPtrSASLAuthenticateRequest(), kmsg.NewPtrSASLAuthenticateResponse()
	proof.SASLAuthBytes = []byte("\x00" + user + "\x00" + password)
	if err := exchange(conn, proof, proved); err != nil {
		return err
	}
	return errors.Join(kerr.ErrorForCode(heard.ErrorCode), kerr.ErrorForCode(proved.ErrorCode))
}

// exchange sends a request and reads its answer.
func exchange(conn net.Conn, req kmsg.Request, res kmsg.Response) error {
	if _, err := conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)); err != nil {
		return err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	body := make([]byte, min(binary.BigEndian.Uint32(head), 1<<20))
	if _, err := io.ReadFull(conn, body); err != nil {
		return err
	}
	body = body[4:] // correlation id
	if res.IsFlexible() {
		body = body[1:] // no tags
	}
	return res.ReadFrom(body)
}
