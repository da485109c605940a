package stream

import (
	"context"
	"fmt"
	"time"
)

// HoldLease calls hold while this process has the lease of a group: the
// assignment of the single partition of topic to one member. The context given
// to hold ends with the lease; a hold that returns before is called again. No
// other member's hold begins before this one has returned, or before the broker
// gave this member up as dead. HoldLease returns nil when ctx ended, else why
// the group could not go on.
func (c *Client) HoldLease(ctx context.Context, group, topic string, hold func(context.Context)) error {
	return c.HoldGeneration(ctx, group, topic, func(ctx context.Context, _ *Generation) { hold(ctx) })
}

// HoldGeneration is [Client.HoldLease] for a holder that commits positions under
// the lease's group: they are refused ([ErrFenced]) once another holds it.
func (c *Client) HoldGeneration(ctx context.Context, group, topic string, hold func(context.Context, *Generation)) error {
	g, err := c.JoinGroup(ctx, GroupConfig{ID: group, Topics: []string{topic}, Watch: time.Minute})
	if err != nil {
		return fmt.Errorf("lease %s: %w", group, err)
	}
	defer g.Close() //nolint:errcheck // leaving late is no failure
	for {
		gen, err := g.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lease %s: %w", group, err)
		}
		during(ctx, gen, hold)
	}
}

// during lasts as long as a generation.
func during(ctx context.Context, gen *Generation, hold func(context.Context, *Generation)) {
	ctx, release := context.WithCancel(ctx)
	defer release()
	go func() {
		select {
		case <-gen.Done:
			release()
		case <-ctx.Done():
		}
	}()
	if len(gen.Assigned) == 0 {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		hold(ctx, gen)
	}
}
