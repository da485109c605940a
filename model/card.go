package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Card is what a reader should know before trusting a model. Every part may be
// empty; nothing in it changes how the model predicts.
type Card struct {
	Name       string                        `json:"name"`
	Namespace  string                        `json:"namespace,omitempty"`
	Run        string                        `json:"run,omitempty"`
	Created    time.Time                     `json:"created,omitzero"`
	Backend    string                        `json:"backend"` // "xgboost 3.2.0", "linear", "command train.py"
	Objective  string                        `json:"objective,omitempty"`
	Params     map[string]string             `json:"params,omitempty"`
	Data       Data                          `json:"data"`
	Device     Device                        `json:"device"`
	Metrics    map[string]map[string]float64 `json:"metrics,omitempty"` // split ("train", "test", "baseline", "live") → metric → value
	Segments   []SegmentMetrics              `json:"segments,omitempty"`
	Importance []Importance                  `json:"importance,omitempty"` // largest contribution first
	// Calibration is of a binary model, on the test.
	Calibration *Calibration `json:"calibration,omitempty"`
	Cost        Cost         `json:"cost"`
	Warnings    []string     `json:"warnings,omitempty"` // leakage flags, fall-backs, …
	Notes       string       `json:"notes,omitempty"`
}

// Data is where the training rows came from, enough to gather them again.
type Data struct {
	Query       string           `json:"query,omitempty"`
	Definitions map[string]any   `json:"definitions,omitempty"` // name → version
	Offsets     map[string]int64 `json:"offsets,omitempty"`     // topic/partition → first offset not used
	From        time.Time        `json:"from,omitzero"`
	To          time.Time        `json:"to,omitzero"`
	Rows        map[string]int   `json:"rows,omitempty"`   // split → rows
	Digest      string           `json:"digest,omitempty"` // of the rows, whatever their order
}

// Device is where training ran and why there.
type Device struct {
	Requested string `json:"requested,omitempty"` // auto, cpu, cuda
	Used      string `json:"used,omitempty"`
	Reason    string `json:"reason,omitempty"` // why Used is not what auto would rather have had
}

// SegmentMetrics are the test metrics of the rows where Column is Value.
type SegmentMetrics struct {
	Column  string             `json:"column"`
	Value   string             `json:"value"`
	Rows    int                `json:"rows"`
	Metrics map[string]float64 `json:"metrics"`
}

// Importance is how much one input matters.
type Importance struct {
	Input        string  `json:"input"`
	Gain         float64 `json:"gain,omitempty"`         // mean loss reduction of its splits
	Contribution float64 `json:"contribution,omitempty"` // mean |TreeSHAP| on the test rows
}

// Calibration compares the probabilities that a binary model said with what
// happened. Its Brier score is reliability − resolution + uncertainty + within.
type Calibration struct {
	ECE         float64          `json:"ece"`         // expected calibration error: mean |said − happened|, by weight
	Brier       float64          `json:"brier"`       // mean squared error of the probabilities
	Reliability float64          `json:"reliability"` // of it, by saying too much or too little
	Resolution  float64          `json:"resolution"`  // gained by telling rows apart
	Uncertainty float64          `json:"uncertainty"` // what always saying the average has
	Within      float64          `json:"within"`      // by rows of one bin that say different things
	Bins        []CalibrationBin `json:"bins"`        // those with rows, in order
}

// CalibrationBin are the rows whose probability was at least From and below To.
type CalibrationBin struct {
	From     float64 `json:"from"`
	To       float64 `json:"to"`
	Weight   float64 `json:"weight"`   // of the rows; their number, where they have no weights
	Said     float64 `json:"said"`     // mean probability
	Happened float64 `json:"happened"` // share of class 1
}

// Cost is what training took.
type Cost struct {
	Wall      float64 `json:"wall_seconds,omitempty"`
	CPU       float64 `json:"cpu_seconds,omitempty"`
	DataCPU   float64 `json:"data_cpu_seconds,omitempty"` // of CPU, until the rows lay in the library
	GPU       float64 `json:"gpu_seconds,omitempty"`      // held
	GPUIdle   float64 `json:"gpu_idle_seconds,omitempty"` // of them, with nothing running on it
	EnergyKWh float64 `json:"energy_kwh,omitempty"`
	Trials    int     `json:"trials,omitempty"`
}

// Markdown renders the card for people.
func (c *Card) Markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n", cmp.Or(c.Name, "model"))
	facts := [][2]string{
		{"Run", c.Run}, {"Trained with", c.Backend}, {"Objective", c.Objective},
		{"Device", deviceLine(c.Device)}, {"Rows", rowsLine(c.Data.Rows)}, {"Digest of the rows", c.Data.Digest},
		{"Cost", costLine(c.Cost)},
	}
	if !c.Created.IsZero() {
		facts = append([][2]string{{"Trained", c.Created.UTC().Format(time.RFC3339)}}, facts...)
	}
	for _, f := range facts {
		if f[1] != "" {
			fmt.Fprintf(&b, "- %s: %s\n", f[0], f[1])
		}
	}
	for _, w := range c.Warnings {
		fmt.Fprintf(&b, "\n> **Warning:** %s\n", w)
	}
	c.tables(&b)
	if c.Notes != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Notes)
	}
	return b.Bytes()
}

func (c *Card) tables(b *bytes.Buffer) {
	if len(c.Metrics) > 0 {
		fmt.Fprint(b, "\n## Metrics\n\n| on | metric | value |\n|---|---|---|\n")
		for _, split := range slices.Sorted(maps.Keys(c.Metrics)) {
			for _, m := range slices.Sorted(maps.Keys(c.Metrics[split])) {
				fmt.Fprintf(b, "| %s | %s | %.6g |\n", cell(split), cell(m), c.Metrics[split][m])
			}
		}
	}
	if len(c.Segments) > 0 {
		fmt.Fprint(b, "\n## Segments\n\n| segment | rows | metrics |\n|---|---|---|\n")
		for _, s := range c.Segments {
			fmt.Fprintf(b, "| %s = %s | %d | %s |\n", cell(s.Column), cell(s.Value), s.Rows, metricsLine(s.Metrics))
		}
	}
	c.Calibration.table(b)
	if len(c.Importance) > 0 {
		fmt.Fprint(b, "\n## What matters\n\n| input | mean contribution | gain |\n|---|---|---|\n")
		for _, i := range c.Importance[:min(20, len(c.Importance))] {
			fmt.Fprintf(b, "| %s | %.4g | %.4g |\n", cell(i.Input), i.Contribution, i.Gain)
		}
	}
	if len(c.Params) > 0 {
		fmt.Fprint(b, "\n## Parameters\n\n| name | value |\n|---|---|\n")
		for _, k := range slices.Sorted(maps.Keys(c.Params)) {
			fmt.Fprintf(b, "| %s | %s |\n", cell(k), cell(c.Params[k]))
		}
	}
}

// table writes the reliability diagram as numbers.
func (c *Calibration) table(b *bytes.Buffer) {
	if c == nil {
		return
	}
	fmt.Fprintf(b, "\n## Calibration\n\nExpected calibration error %.4g. Brier score %.4g = reliability %.4g − resolution %.4g + uncertainty %.4g + within bins %.2g.\n\n| said | happened | rows |\n|---|---|---|\n",
		c.ECE, c.Brier, c.Reliability, c.Resolution, c.Uncertainty, c.Within)
	for _, bin := range c.Bins {
		fmt.Fprintf(b, "| %.3f | %.3f | %.6g |\n", bin.Said, bin.Happened, bin.Weight)
	}
}

// cell keeps a value inside its table cell.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ").Replace(s)
}

func deviceLine(d Device) string {
	if d.Used == "" {
		return ""
	}
	line := d.Used + " (asked for " + cmp.Or(d.Requested, d.Used) + ")"
	if d.Reason != "" {
		line += ": " + d.Reason
	}
	return line
}

func rowsLine(rows map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		parts = append(parts, fmt.Sprintf("%d %s", rows[k], k))
	}
	return strings.Join(parts, ", ")
}

func costLine(c Cost) string {
	if c.Wall == 0 {
		return ""
	}
	line := fmt.Sprintf("%.1f s, %.1f CPU s", c.Wall, c.CPU)
	if c.GPU > 0 {
		line += fmt.Sprintf(", a GPU held for %.1f s, idle for %.1f of them", c.GPU, c.GPUIdle)
	}
	if c.EnergyKWh > 0 {
		line += fmt.Sprintf(", %.3g kWh on the GPU", c.EnergyKWh)
	}
	return line
}

func metricsLine(m map[string]float64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %.5g", k, m[k]))
	}
	return strings.Join(parts, ", ")
}

func (c *Card) encode() ([]byte, error) {
	text, err := json.MarshalIndent(c, "", "  ")
	return append(text, '\n'), err
}
