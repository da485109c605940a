package serving

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// brokerMain is a durable broker in a process of its own: it tells its address and
// ends with its input.
func brokerMain() int {
	b, err := broker.Start(broker.Config{Addr: "127.0.0.1:0", DataDir: os.Args[2], DefaultPartitions: 4, AutoCreateTopics: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(b.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	b.Close()
	return 0
}

// brokerApart starts one and returns its address, and what tells its processor time.
func brokerApart(b *testing.B) (addr string, spent func() time.Duration) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "broker", b.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if addr, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr), func() time.Duration { return processorTimeOf(b, cmd.Process.Pid) }
}

// processorTimeOf is another process's, to the kernel's hundredth of a second.
func processorTimeOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	var user, system int64
	_, rest, _ := strings.Cut(string(text), ") ")
	if f := strings.Fields(rest); len(f) > 12 {
		user, _ = strconv.ParseInt(f[11], 10, 64)
		system, _ = strconv.ParseInt(f[12], 10, 64)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// recordingTo is a server that records to a broker.
func recordingTo(b *testing.B, addr string) *Server {
	b.Helper()
	c, err := stream.NewClient(stream.Config{Brokers: []string{addr}})
	if err != nil {
		b.Fatal(err)
	}
	if err := c.EnsureTopics(b.Context(), []stream.TopicSpec{{Name: "kedge.default.predictions", Partitions: 4}}); err != nil {
		b.Fatal(err)
	}
	p := c.Producer(stream.ProducerConfig{})
	s := NewServer(DefaultConfig(), p, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	ctx := b.Context()
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() { <-done; p.Close(); c.Close() })
	return s
}

// BenchmarkRecording compares a server that does not record with one that records
// to nobody, one that records to a durable broker in a process apart, and one whose
// broker is in this process, in turns, so that what else the machine does falls on
// all: processor time of this process, client included; broker-too is with that of
// the broker apart, which shares the machine here.
func BenchmarkRecording(b *testing.B) {
	m := hundredTrees(b)
	within, err := broker.Start(broker.Config{Addr: "127.0.0.1:0", DataDir: b.TempDir(), DefaultPartitions: 4, AutoCreateTopics: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { within.Close() })
	apart, brokers := brokerApart(b)
	servers := []*Server{
		NewServer(DefaultConfig(), nil, slog.New(slog.DiscardHandler)),
		recordingServer(b), recordingTo(b, apart), recordingTo(b, within.Addr()),
	}
	var addrs []string
	for _, s := range servers {
		if err := s.Load(m); err != nil {
			b.Fatal(err)
		}
		addrs = append(addrs, serve(b, s))
	}
	for _, c := range []struct {
		name    string
		request []byte
		rows    int
	}{{"json-1x30", post("/v2/models/fraud/infer", nil, jsonRow()), 1}, {"binary-64x30", binaryRows(64), 64}} {
		b.Run(c.name, func(b *testing.B) {
			spent, broker := make([]time.Duration, len(addrs)), brokers()
			const turns = 8
			each := max(300, b.N/turns)
			for range turns {
				for at := range addrs {
					cpu := processorTime(b)
					if l := offer(b, addrs[at], c.request, each, 8, 0); l.failed+l.refused > 0 {
						b.Fatalf("%d failed, %d refused", l.failed, l.refused)
					}
					spent[at] += processorTime(b) - cpu
				}
			}
			per := func(at int) float64 { return float64(spent[at]) / float64(turns*each*c.rows) / 1e3 }
			broker = brokers() - broker
			b.ReportMetric(float64(spent[2]+broker)/float64(spent[0]), "broker-too-x")
			b.ReportMetric(per(0), "cpu-µs/row")
			b.ReportMetric(per(1)/per(0), "to-nobody-x")
			b.ReportMetric(per(2)/per(0), "broker-apart-x")
			b.ReportMetric(per(3)/per(0), "broker-within-x")
		})
	}
	for i, s := range servers {
		if n := s.Records(); n.Dropped+n.Failed+n.Sampled > 0 {
			b.Errorf("server %d: %+v", i, n)
		}
	}
}

// BenchmarkDeliver is what a record costs this process from the ring to a broker
// apart, where so many leave together: 800 and 15,000 requests a second by the time
// that records wait, and 15,000 by the 20 ms that they once did. Most of it is paid
// per delivery, for waking who sends. Under other people's load the benchmark above
// has fewer requests in that time than a machine of its own would.
func BenchmarkDeliver(b *testing.B) {
	apart, _ := brokerApart(b)
	s := recordingTo(b, apart)
	packed := make([]byte, 600) // a row of 30
	for _, together := range []int{40, 750, 300} {
		b.Run(fmt.Sprint("together=", together), func(b *testing.B) {
			cpu := processorTime(b)
			for i := 0; i < b.N; i += together {
				before := s.Records().Recorded
				for k := range together {
					if err := s.rec.put(b.Context(), Block, parcel{msg: stream.Message{Key: fmt.Append(nil, "p-", i+k), Value: packed}, rows: 1}); err != nil {
						b.Fatal(err)
					}
				}
				for s.Records().Recorded < before+uint64(together) {
					time.Sleep(5 * time.Millisecond)
				}
			}
			b.ReportMetric(float64(processorTime(b)-cpu)/float64(b.N)/1e3, "cpu-µs/record")
		})
	}
}
