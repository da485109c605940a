// Command producers sends a feature row, a prediction and its label to Kedge as
// a Go service would: over Kafka, with nothing of Kedge's.
//
//	go run ./examples/producers 127.0.0.1:9092
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
)

func main() {
	w := &kafka.Writer{
		Addr:         kafka.TCP(os.Args[1]),
		Balancer:     kafka.Murmur2Balancer{}, // as Java has it: equal keys meet in equal partitions
		RequiredAcks: kafka.RequireAll,
		BatchTimeout: 10 * time.Millisecond,
	}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	err := w.WriteMessages(context.Background(),
		kafka.Message{Topic: "kedge.default.features", Key: []byte(`{"user_id":7}`),
			Value: fmt.Appendf(nil, `{"view":"user","key":{"user_id":7},"event_time":"%s","values":{"spend":12.5,"country":"IT"}}`, now)},
		kafka.Message{Topic: "kedge.default.predictions", Key: []byte("go-1"),
			Value: fmt.Appendf(nil, `{"model":"churn","version":"3","id":"go-1","event_time":"%s","inputs":{"spend":12.5},"output":{"score":0.31}}`, now)},
		kafka.Message{Topic: "kedge.default.labels", Key: []byte("go-1"),
			Value: fmt.Appendf(nil, `{"model":"churn","prediction_id":"go-1","event_time":"%s","label":0}`, now)},
	)
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	if err != nil {
		log.Fatal(err)
	}
}
