package stream

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

// anyBroker routes a request to whichever broker answers first.
const anyBroker int32 = -1

// correlation is the id of every request sent by [call]: a connection carries
// one request at a time, so it only has to come back unchanged.
const correlation int32 = 0x6b656467

// call sends a request to a broker of the caller's choice. The library routes
// by a layout of its own that is refreshed on a timer only, answers metadata
// from a cache, and waits without end for created topics to appear in it;
// a call goes straight to a connection of its pool instead.
type call struct {
	protocol.Message
	broker   int32
	clientID string
	version  int16
}

// answer keeps the library from looking into the response.
type answer struct{ protocol.Message }

// Broker names the broker to send to; the library asks.
func (c *call) Broker(protocol.Cluster) (protocol.Broker, error) {
	return protocol.Broker{ID: c.broker}, nil
}

// Required takes the negotiated version and the exchange over.
func (c *call) Required(versions map[protocol.ApiKey]int16) bool {
	c.version = versions[c.ApiKey()]
	return true
}

// RawExchange sends the request and reads its response.
func (c *call) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, c.version, correlation, c.clientID, c.Message); err != nil {
		return nil, err
	}
	return c.read(rw)
}

func (c *call) read(rw io.Reader) (protocol.Message, error) {
	id, m, err := protocol.ReadResponse(rw, c.ApiKey(), c.version)
	if err != nil {
		return nil, err
	}
	if id != correlation {
		return nil, fmt.Errorf("%w: response %d answers another request", ErrCorrupt, id)
	}
	return answer{m}, nil
}

// recordSet is a batch for one partition as it lies in memory, its length first.
type recordSet struct {
	tp    TopicPartition
	bytes []byte
}

// produceCall sends record sets as they lie in memory, where the library copies them
// page by page into a request of its own.
type produceCall struct {
	call
	timeout time.Duration
	sets    []recordSet // those of one topic beside each other
}

// produceBuffer is up to where record sets are copied, so that many small ones leave
// in one write; what is larger is written from where it lies.
const produceBuffer = 32 << 10

// RawExchange sends the request and reads its response.
func (c *produceCall) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if c.version < 3 || c.version > 8 {
		return nil, fmt.Errorf("produce: the broker speaks version %d of the request, wanted 3 to 8", c.version)
	}
	head, size := c.head()
	w := bufio.NewWriterSize(rw, min(4+size, produceBuffer))
	w.Write(head) //nolint:errcheck // the writer keeps its first error, and Flush tells it
	for i := range c.sets {
		w.Write(c.intro(i))      //nolint:errcheck // the same
		w.Write(c.sets[i].bytes) //nolint:errcheck // the same
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return c.read(rw)
}

// head is the request up to its first topic, and size how many bytes follow its length.
func (c *produceCall) head() (head []byte, size int) {
	b := make([]byte, 4, 64+len(c.clientID))
	b = binary.BigEndian.AppendUint16(b, uint16(protocol.Produce))
	b = binary.BigEndian.AppendUint16(b, uint16(c.version))
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	b = appendText(b, c.clientID)
	b = append(b, 0xff, 0xff) // no transaction
	b = append(b, 0xff, 0xff) // acknowledged by all replicas in sync
	b = binary.BigEndian.AppendUint32(b, uint32(c.timeout/time.Millisecond))
	topics := 0
	size = len(b) // with the topics' number for its own length
	for i := range c.sets {
		if c.opens(i) {
			topics++
		}
		size += len(c.intro(i)) + len(c.sets[i].bytes)
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	return binary.BigEndian.AppendUint32(b, uint32(topics)), size
}

// opens reports whether a set is the first one of its topic.
func (c *produceCall) opens(i int) bool { return i == 0 || c.sets[i].tp.Topic != c.sets[i-1].tp.Topic }

// intro is what precedes a set: its partition, and its topic before the first of them.
func (c *produceCall) intro(i int) []byte {
	topic := c.sets[i].tp.Topic
	b := make([]byte, 0, 10+len(topic))
	if c.opens(i) {
		n := 1
		for i+n < len(c.sets) && !c.opens(i+n) {
			n++
		}
		b = binary.BigEndian.AppendUint32(appendText(b, topic), uint32(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(c.sets[i].tp.Partition))
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// exchange sends req to a broker and waits for its response for at most wait
// beyond the client's request timeout.
func (c *Client) exchange(ctx context.Context, broker int32, wait time.Duration, req protocol.Message) (protocol.Message, error) {
	m, err := c.send(ctx, wait, &call{Message: req, broker: broker, clientID: c.cfg.ClientID})
	if err != nil {
		return nil, err
	}
	return m.(answer).Message, nil
}

func (c *Client) send(ctx context.Context, wait time.Duration, req protocol.Message) (protocol.Message, error) {
	limited, cancel := context.WithTimeout(ctx, wait+c.cfg.RequestTimeout)
	defer cancel()
	m, err := c.transport.RoundTrip(limited, c.addr, req)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // the connection's deadline is the context's, and its error says less
	}
	return m, err
}
