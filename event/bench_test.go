package event

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// cpuTime is what this process has used, so that a busy machine does not
// change a result much.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// benchEvents makes feature events as issue-size ones are: 20 values, about
// 460 bytes.
func benchEvents(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	list := make([][]byte, n)
	for i := range list {
		row := FeatureRow{View: "payments", ID: fmt.Sprintf("e-%08d", i), EventTime: testClock - int64(n-i)*1000,
			Key: []NamedValue{{"account", Int(int64(r.IntN(100_000)))}}}
		for c := range 20 {
			v := Float(r.NormFloat64() * 100)
			switch c % 10 {
			case 3:
				v = Int(int64(r.IntN(1000)))
			case 5:
				v = Float(float64(r.IntN(100000)) / 100)
			case 6:
				v = Text([]string{"web", "app", "shop"}[r.IntN(3)])
			case 8:
				v = Float(float64(r.IntN(1000)) / 10)
			case 9:
				v = Flag(r.IntN(2) == 0)
			}
			row.Values = append(row.Values, NamedValue{fmt.Sprintf("f%d", c), v})
		}
		list[i] = AppendFeatureJSON(nil, row)
	}
	return list
}

func BenchmarkDecode(b *testing.B) {
	events := benchEvents(10_000)
	size := 0
	for _, e := range events {
		size += len(e)
	}
	w := newWorld(b, Features)
	texts := make([]string, 100)
	for i := range texts {
		texts[i] = string(events[i])
	}
	w.decode(texts...)
	for range 2 { // the columns grow once
		w.unit.Reset(w.cat)
		for i, e := range events {
			w.d.Decode(w.unit, Record{Offset: int64(i), Time: testClock, Value: e})
		}
	}
	b.SetBytes(int64(size / len(events)))
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuTime()
	for i := 0; i < b.N; i++ {
		k := i % len(events)
		if k == 0 {
			w.unit.Reset(w.cat)
		}
		w.d.Decode(w.unit, Record{Offset: int64(i), Time: testClock, Value: events[k]})
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
	if len(w.unit.Dead) > 0 || len(w.unit.Proposals) > 0 {
		b.Fatalf("dead %+v, proposals %+v", w.unit.Dead, w.unit.Proposals)
	}
}

func BenchmarkParseFloatStd(b *testing.B) {
	start := cpuTime()
	for i := 0; i < b.N; i++ {
		f, _ := strconv.ParseFloat("-84.442185152504816", 64)
		sink += f
	}
	b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func BenchmarkParseFloat(b *testing.B) {
	s := &scanner{}
	buf := []byte("-84.442185152504816,")
	start := cpuTime()
	for i := 0; i < b.N; i++ {
		s.start(buf)
		n, _ := s.number()
		f, _ := n.float64()
		sink += f
	}
	b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

var sink float64
