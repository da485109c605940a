package ingest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kedge-ml/kedge/stream"
)

// TestQuietStoreIsNamed lets a store say nothing for a minute: the status says
// meanwhile what is waited for, and no longer once there is an answer, of
// whichever kind.
func TestQuietStoreIsNamed(t *testing.T) {
	for name, answer := range map[string]error{"done": nil, "an error": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &partition{state: newState(stream.TopicPartition{Topic: "t"})}
				err := attemptOf(t.Context(), p, "prepare tables", func(context.Context) error {
					time.Sleep(quietAfter - time.Second)
					if got := p.state.get().Waiting; got != "" {
						t.Errorf("too early: %q", got)
					}
					time.Sleep(quietAfter)
					if got := p.state.get().Waiting; !strings.Contains(got, "prepare tables: no answer") {
						t.Errorf("the status says %q", got)
					}
					return answer
				})
				if got := p.state.get().Waiting; got != "" || !errors.Is(err, answer) {
					t.Errorf("afterwards: %q, %v", got, err)
				}
			})
		})
	}
}

// TestThrottledIsNotQuiet: who waits for a quota is not waiting for the store.
func TestThrottledIsNotQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &partition{state: newState(stream.TopicPartition{Topic: "t"})}
		p.state.throttled("a quota")
		_ = attemptOf(t.Context(), p, "insert", func(context.Context) error {
			time.Sleep(2 * quietAfter)
			if got := p.state.get().Waiting; got != "" {
				t.Errorf("the status says %q", got)
			}
			return nil
		})
	})
}
