package drift_test

import (
	"errors"
	"math"
	"strconv"

	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/peer"
)

func adjusted(f func([]float64) []float64) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) {
		p := f(c.numbers("p", ""))
		reject := make([]bool, len(p))
		for i, v := range p {
			reject[i] = v <= 0.05
		}
		return map[string]any{"adjusted": p, "reject_at_0.05": reject}, nil
	}
}

func betaBinomial(c *referenceCase, want map[string]any) (map[string]any, error) {
	prior := c.Meta["prior"].([]any)
	r := &control.RateEvidence{P0: c.meta("p0"), A: prior[0].(float64), B: prior[1].(float64), Max: math.Inf(-1)}
	at, first := map[string]any{}, any(nil)
	for i, x := range c.numbers("x", "") {
		e := r.Add(x, 1)
		if first == nil && e >= -math.Log(c.meta("alpha")) {
			first = i + 1
		}
		at[strconv.Itoa(i+1)] = e
	}
	return map[string]any{"log_e_at": at, "first_rejection_n": first, "max_log_e": r.Max}, nil
}

// chunkRows lays out reference chunks, then analysis chunks, as NannyML does,
// and lets fill add to each.
func chunkRows(c *referenceCase, prefix string, fill func(part string, rows peer.Chunk, out map[string]any)) []map[string]any {
	var out []map[string]any
	for _, part := range []string{"ref", "cur"} {
		period := map[string]string{"ref": "reference", "cur": "analysis"}[part]
		for i, ch := range peer.Chunks(len(c.column("part", part)), int(c.meta("chunk_size"))) {
			row := map[string]any{prefix + "chunk_index": i, prefix + "start_index": ch.From, prefix + "end_index": ch.To - 1,
				prefix + "key": "[" + strconv.Itoa(ch.From) + ":" + strconv.Itoa(ch.To-1) + "]", prefix + "period": period}
			fill(part, ch, row)
			out = append(out, row)
		}
	}
	return out
}

func slice[T any](xs []T, c peer.Chunk) []T { return xs[c.From:c.To] }

// refValues collects one number per reference chunk.
func refValues(c *referenceCase, f func(peer.Chunk) float64) []float64 {
	var out []float64
	for _, ch := range peer.Chunks(len(c.column("part", "ref")), int(c.meta("chunk_size"))) {
		out = append(out, f(ch))
	}
	return out
}

func columnAt(c *referenceCase, name, part string, ch peer.Chunk) peer.Column {
	for _, cat := range c.names("cat") {
		if cat == name {
			return peer.Categories(slice(c.column(name, part), ch))
		}
	}
	return peer.Numbers(slice(c.numbers(name, part), ch))
}

func nannyChunks(c *referenceCase, _ map[string]any) (map[string]any, error) {
	type fitted struct {
		key    string
		column string
		f      *peer.Fitted
		limits peer.Limits
	}
	var all []fitted
	var faults error
	add := func(column, method string) {
		f, err := peer.FitNannyML(method, peerColumn(c, column, "ref"))
		faults = errors.Join(faults, err)
		limits := peer.ThreeSigma(refValues(c, func(ch peer.Chunk) float64 {
			v, _, err := f.Value(columnAt(c, column, "ref", ch))
			faults = errors.Join(faults, err)
			return v
		})).UpperOnly()
		if method == "kolmogorov_smirnov" {
			limits = limits.Within(0, 1)
		}
		if method == "chi2" {
			limits = peer.Limits{}
		}
		all = append(all, fitted{column + "/" + method + "/", column, f, limits})
	}
	for _, column := range c.names("num") {
		for _, m := range []string{"jensen_shannon", "hellinger", "kolmogorov_smirnov", "wasserstein"} {
			add(column, m)
		}
	}
	for _, column := range c.names("cat") {
		for _, m := range []string{"jensen_shannon", "hellinger", "chi2", "l_infinity"} {
			add(column, m)
		}
	}
	rows := chunkRows(c, "chunk/chunk/", func(part string, ch peer.Chunk, out map[string]any) {
		for _, f := range all {
			v, p, err := f.f.Value(columnAt(c, f.column, part, ch))
			faults = errors.Join(faults, err)
			out[f.key+"value"], out[f.key+"lower_threshold"], out[f.key+"upper_threshold"] = v, f.limits.Lower, f.limits.Upper
			out[f.key+"alert"] = f.limits.Crossed(v) || f.limits.Upper == nil && p < 0.05
		}
	})
	return map[string]any{"chunks": rows}, faults
}

// estimateMembers are the members that NannyML gives a value with an error.
func estimateMembers(out map[string]any, key string, e peer.Estimate, l peer.Limits, low, high float64) {
	out[key+"value"], out[key+"lower_threshold"], out[key+"upper_threshold"] = e.Value, l.Lower, l.Upper
	out[key+"alert"] = l.Crossed(e.Value)
	for _, m := range []string{"sampling_error", "upper_confidence_boundary", "lower_confidence_boundary"} {
		out[key+m] = nil
	}
	if e.Known {
		out[key+"sampling_error"] = e.StdErr
		out[key+"upper_confidence_boundary"] = min(high, e.Value+3*e.StdErr)
		out[key+"lower_confidence_boundary"] = max(low, e.Value-3*e.StdErr)
	}
}

// nannyEstimates runs a summary or quality calculator over columns.
func nannyEstimates(columns func(*referenceCase) []string, low, high float64,
	fit func(c *referenceCase, column string) func(part string, ch peer.Chunk) peer.Estimate) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) {
		values := map[string]func(string, peer.Chunk) peer.Estimate{}
		limits := map[string]peer.Limits{}
		for _, column := range columns(c) {
			f := fit(c, column)
			values[column] = f
			limits[column] = peer.ThreeSigma(refValues(c, func(ch peer.Chunk) float64 { return f("ref", ch).Value })).Within(low, high)
		}
		rows := chunkRows(c, "chunk/", func(part string, ch peer.Chunk, out map[string]any) {
			for column, f := range values {
				estimateMembers(out, column+"/", f(part, ch), limits[column], low, high)
			}
		})
		return map[string]any{"chunks": rows}, nil
	}
}

func numericColumns(c *referenceCase) []string { return c.names("num") }
func everyColumn(c *referenceCase) []string    { return append(c.names("num"), c.names("cat")...) }

func missingIn(texts []string) int {
	n := 0
	for _, s := range texts {
		if s == "" {
			n++
		}
	}
	return n
}

func nannyUnseen(c *referenceCase, _ map[string]any) (map[string]any, error) {
	zero := 0.0
	rows := chunkRows(c, "chunk/", func(part string, ch peer.Chunk, out map[string]any) {
		for _, column := range c.names("cat") {
			v := peer.UnseenShare(c.column(column, "ref"), slice(c.column(column, part), ch))
			out[column+"/value"], out[column+"/lower_threshold"], out[column+"/upper_threshold"] = v, nil, zero
			out[column+"/alert"] = v > zero
		}
	})
	return map[string]any{"chunks": rows}, nil
}

func rowsOf(c *referenceCase, part string) [][]float64 {
	var out [][]float64
	for k, name := range c.Header {
		if name == "part" {
			continue
		}
		for i, x := range c.numbers(c.Header[k], part) {
			if i == len(out) {
				out = append(out, nil)
			}
			out[i] = append(out[i], x)
		}
	}
	return out
}

func nannyReconstruction(c *referenceCase, _ map[string]any) (map[string]any, error) {
	all := map[string][][]float64{"ref": rowsOf(c, "ref"), "cur": rowsOf(c, "cur")}
	r, err := peer.FitReconstruction(all["ref"], c.meta("n_components"))
	if err != nil {
		return nil, err
	}
	limits := peer.ThreeSigma(refValues(c, func(ch peer.Chunk) float64 { return r.Error(slice(all["ref"], ch)).Value }))
	rows := chunkRows(c, "chunk/", func(part string, ch peer.Chunk, out map[string]any) {
		estimateMembers(out, "reconstruction_error/", r.Error(slice(all[part], ch)), limits, 0, math.Inf(1))
	})
	return map[string]any{"chunks": rows}, nil
}

func chunkHandlers() map[string]handler {
	none := math.Inf(1)
	return map[string]handler{
		"fdr.bh":                     adjusted(control.BenjaminiHochberg),
		"fdr.by":                     adjusted(control.BenjaminiYekutieli),
		"bonferroni":                 adjusted(control.Bonferroni),
		"holm":                       adjusted(control.Holm),
		"eprocess.beta_binomial":     betaBinomial,
		"nannyml.univariate":         nannyChunks,
		"nannyml.unseen":             nannyUnseen,
		"nannyml.pca_reconstruction": nannyReconstruction,
		"nannyml.missing": nannyEstimates(everyColumn, 0, 1, func(c *referenceCase, column string) func(string, peer.Chunk) peer.Estimate {
			ref := c.column(column, "ref")
			share := float64(missingIn(ref)) / float64(len(ref))
			return func(part string, ch peer.Chunk) peer.Estimate {
				return peer.MissingShare(share, missingIn(slice(c.column(column, part), ch)), ch.To-ch.From)
			}
		}),
		"nannyml.summary_avg": nannyEstimates(numericColumns, -none, none, func(c *referenceCase, column string) func(string, peer.Chunk) peer.Estimate {
			ref := peer.ComponentsOf(c.numbers(column, "ref"))
			return func(part string, ch peer.Chunk) peer.Estimate {
				return peer.MeanOf(ref.Std, slice(c.numbers(column, part), ch))
			}
		}),
		"nannyml.summary_std": nannyEstimates(numericColumns, 0, none, func(c *referenceCase, column string) func(string, peer.Chunk) peer.Estimate {
			ref := peer.ComponentsOf(c.numbers(column, "ref"))
			return func(part string, ch peer.Chunk) peer.Estimate {
				return peer.StdOf(ref, slice(c.numbers(column, part), ch))
			}
		}),
	}
}
