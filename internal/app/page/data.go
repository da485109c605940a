package page

import "time"

// Data is everything that the page shows.
type Data struct {
	Now       time.Time
	Version   string
	Namespace string
	Uptime    time.Duration
	Roles     []string
	From, To  time.Time // the hour that charts show

	Problems []Problem
	Parts    []Part // what the process consists of and depends on
	Streams  []Stream
	Ledger   *Ledger // nil before the first audit
	Dead     []DeadReason
	Storage  Storage
	Models   []Subject
	Views    []Subject
	Traces   []Trace // newest first
}

// Trace is one that this process keeps.
type Trace struct {
	ID     string
	Name   string // of its root
	Age    float64
	MS     float64
	Failed bool
	Link   string // to all of it; empty where no Grafana is known
}

// Problem is something that needs a person.
type Problem struct {
	Severity string // "warning" or "critical"
	Title    string
	Detail   string
}

// Part is a piece of the process or something it talks to.
type Part struct {
	Name   string
	OK     bool
	Detail string
}

// Stream is one of the three streams.
type Stream struct {
	Kind      string
	PerSecond float64  // rows, lately
	Rows      uint64   // in the charted hour
	Series    Series   // rows a second
	Lag       *float64 // s, append time to queryable
	Age       *float64 // s, since the newest event time
}

// Series is values at the start of equal steps; NaN where there is none.
type Series struct {
	From   time.Time
	Step   time.Duration
	Values []float64
}

// Ledger sums the exactly-once books up.
type Ledger struct {
	Partitions              int
	Checked                 time.Duration // since the audit
	Records, Rows           uint64
	DeadLetters, Duplicates uint64
	GapRows, DuplicateRows  int64
}

// DeadReason counts dead letters of one reason.
type DeadReason struct {
	Reason  string
	Count   uint64
	Last    time.Time
	Example string
}

// Storage says how long the disk will last.
type Storage struct {
	Used, Free  uint64 // bytes
	PerDay      float64
	DaysToFull  *float64 // nil: not growing
	Rows        string   // retention, as text
	Broker      string
	DeadLetters string
}

// Subject is a view or a model.
type Subject struct {
	Name, Origin, Owner string
	Versions            []string
	Keys                []string
	PerSecond           float64
	Rows                uint64
	Age                 *float64
	Throughput          Series
	Columns             []Column
	Scores              *Heat
	Coverage            *Series // share of predictions that have their label by now, by time of prediction
	Score, Truth        *Series // mean prediction and mean label, where both are numbers
}

// Column is one value column over the hour.
type Column struct {
	Name     string
	Type     string
	Mean     Series
	Low      Series // band: 5 % and 95 % quantile, or empty
	High     Series
	NullRate float64
	Last     *float64
}

// Heat is a distribution over time: Cells[t][b] counts values of bucket b.
type Heat struct {
	From  time.Time
	Step  time.Duration
	Low   float64
	High  float64
	Cells [][]float64
}
