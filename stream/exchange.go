package stream

import (
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

// produceCall sends a record set as it lies in memory, where the library copies it
// page by page into a request of its own.
type produceCall struct {
	call
	tp      TopicPartition
	timeout time.Duration
	set     []byte // its length first
}

// RawExchange sends the request and reads its response.
func (c *produceCall) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if c.version < 3 || c.version > 8 {
		return nil, fmt.Errorf("produce: the broker speaks version %d of the request, wanted 3 to 8", c.version)
	}
	if _, err := rw.Write(c.head()); err != nil {
		return nil, err
	}
	if _, err := rw.Write(c.set); err != nil {
		return nil, err
	}
	return c.read(rw)
}

// head is the request up to its record set.
func (c *produceCall) head() []byte {
	text := func(b []byte, s string) []byte { return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...) }
	b := make([]byte, 4, 64+len(c.clientID)+len(c.tp.Topic))
	b = binary.BigEndian.AppendUint16(b, uint16(protocol.Produce))
	b = binary.BigEndian.AppendUint16(b, uint16(c.version))
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	b = text(b, c.clientID)
	b = append(b, 0xff, 0xff) // no transaction
	b = append(b, 0xff, 0xff) // acknowledged by all replicas in sync
	b = binary.BigEndian.AppendUint32(b, uint32(c.timeout/time.Millisecond))
	b = text(binary.BigEndian.AppendUint32(b, 1), c.tp.Topic)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, 1), uint32(c.tp.Partition))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4+len(c.set)))
	return b
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
