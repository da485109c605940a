package kafkatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kedge-ml/kedge/internal/kafkatest"
)

func TestEachBrokerStoresARecord(t *testing.T) {
	kafkatest.Each(t, func(t *testing.T, addr string) {
		c, err := kgo.NewClient(kgo.SeedBrokers(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := c.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestThreeBrokersLoseOneAndTakeItBack(t *testing.T) {
	c := kafkatest.Start(t, 3)
	c.Kill(t, 2)
	c.Restart(t, 2)
	c.Pause(t, 1)
	c.Resume(t, 1)
	c.Ready(t)
}
