package stream

import (
	"context"
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
	id, m, err := protocol.ReadResponse(rw, c.ApiKey(), c.version)
	if err != nil {
		return nil, err
	}
	if id != correlation {
		return nil, fmt.Errorf("%w: response %d answers another request", ErrCorrupt, id)
	}
	return answer{m}, nil
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
