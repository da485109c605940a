package drift_test

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-ml/kedge/drift/online"
	"github.com/kedge-ml/kedge/drift/peer"
	"github.com/kedge-ml/kedge/drift/stat"
)

func allHandlers() map[string]handler {
	out := map[string]handler{}
	for _, part := range []map[string]handler{rowHandlers(), countHandlers(), toolHandlers(), streamHandlers(), chunkHandlers(), perfHandlers()} {
		maps.Copy(out, part)
	}
	return out
}

func ladderOf(c *referenceCase) stat.Ladder {
	if c.Kind == "numeric_counts" {
		return ladderOfCounts(c)
	}
	return stat.NewLadder(c.numbers("value", "ref"), c.numbers("value", "cur"))
}

func testAnswer(t stat.Test, err error) (map[string]any, error) {
	return map[string]any{"statistic": t.Statistic, "p_value": t.P, "dof": t.DF}, err
}

func valueAnswer(v float64, err error) (map[string]any, error) {
	return map[string]any{"statistic": v}, err
}

func onLadder(f func(stat.Ladder) (stat.Test, error)) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) { return testAnswer(f(ladderOf(c))) }
}

func distanceOnLadder(f func(stat.Ladder) (float64, error)) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) { return valueAnswer(f(ladderOf(c))) }
}

func cleanParts(c *referenceCase) (ref, cur []float64) {
	return stat.Clean(c.numbers("value", "ref")), stat.Clean(c.numbers("value", "cur"))
}

func onMoments(f func(ref, cur stat.Moments) (stat.Test, error)) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) {
		ref, cur := cleanParts(c)
		return testAnswer(f(stat.MomentsOf(ref), stat.MomentsOf(cur)))
	}
}

func onDeciles(d stat.Divergence) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) {
		ref, cur := cleanParts(c)
		edges := stat.Deciles(ref)
		a, b := stat.OpenBins(ref, edges), stat.OpenBins(cur, edges)
		s, err := stat.SharesOf(a, b)
		return map[string]any{"statistic": s.Distance(d), "inner_edges": edges, "ref_counts": a, "cur_counts": b}, err
	}
}

func momentMembers(sorted []float64) map[string]any {
	m := stat.MomentsOf(sorted)
	std := math.Sqrt(m.Variance)
	if m.N < 2 {
		std = math.NaN()
	}
	return map[string]any{"n": m.N, "mean": m.Mean, "std1": std,
		"min": sorted[0], "max": sorted[len(sorted)-1], "median": stat.Quantile(sorted, 0.5)}
}

func rowHandlers() map[string]handler {
	return map[string]handler{
		"ks.scipy.asymp": onLadder(stat.KSAsymptotic),
		"ks.scipy.exact": onLadder(stat.KSExact),
		"t.student":      onMoments(stat.Student),
		"t.welch":        onMoments(stat.Welch),
		"mannwhitney.two_sided": onLadder(func(l stat.Ladder) (stat.Test, error) {
			return stat.MannWhitney(l, stat.TwoSided)
		}),
		"mannwhitney.exact": onLadder(func(l stat.Ladder) (stat.Test, error) {
			return stat.MannWhitneyExact(l, stat.TwoSided)
		}),
		"cramervonmises.asymp": onLadder(stat.CramerVonMises),
		"anderson.ksamp":       onLadder(stat.Anderson),
		"epps_singleton": func(c *referenceCase, _ map[string]any) (map[string]any, error) {
			return testAnswer(stat.EppsSingleton(cleanParts(c)))
		},
		"wasserstein.raw":            distanceOnLadder(stat.Wasserstein),
		"wasserstein.norm_std_ref":   distanceOnLadder(stat.WassersteinNormed),
		"psi.ref_deciles":            onDeciles(stat.PSI),
		"js_divergence2.ref_deciles": onDeciles(stat.JSDivergence),
		"hellinger.ref_deciles":      onDeciles(stat.Hellinger),
		"moments": func(c *referenceCase, _ map[string]any) (map[string]any, error) {
			ref, cur := cleanParts(c)
			if _, err := stat.SharesOf([]uint64{uint64(len(ref))}, []uint64{uint64(len(cur))}); err != nil {
				return nil, err
			}
			return map[string]any{"ref": momentMembers(ref), "cur": momentMembers(cur)}, nil
		},
	}
}

// countsOf counts both parts over the sorted union of their values.
func countsOf(c *referenceCase) stat.Counts {
	both := [2]map[string]uint64{{}, {}}
	for i, part := range []string{"ref", "cur"} {
		values := c.present("value", part)
		for k, v := range values {
			n := uint64(1)
			if c.Kind != "categorical" {
				n, _ = strconv.ParseUint(c.column("n", part)[k], 10, 64)
			}
			both[i][v] += n
		}
	}
	names := maps.Clone(both[0])
	maps.Copy(names, both[1])
	order := slices.Sorted(maps.Keys(names))
	if c.Kind == "numeric_counts" {
		slices.SortFunc(order, func(a, b string) int {
			x, _ := strconv.ParseFloat(a, 64)
			y, _ := strconv.ParseFloat(b, 64)
			return int(math.Copysign(1, x-y))
		})
	}
	var out stat.Counts
	for _, name := range order {
		out.Ref, out.Cur = append(out.Ref, both[0][name]), append(out.Cur, both[1][name])
	}
	return out
}

func ladderOfCounts(c *referenceCase) stat.Ladder {
	seen := map[float64]bool{}
	for _, x := range c.numbers("value", "") {
		seen[x] = true
	}
	counts := countsOf(c)
	return stat.LadderOfCounts(slices.Sorted(maps.Keys(seen)), counts.Ref, counts.Cur)
}

func onCounts(f func(stat.Counts) (stat.Test, error)) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) { return testAnswer(f(countsOf(c))) }
}

func onShares(f func(stat.Shares) float64) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) {
		counts := countsOf(c)
		s, err := stat.SharesOf(counts.Ref, counts.Cur)
		return valueAnswer(f(s), err)
	}
}

func divergence(d stat.Divergence) handler {
	return onShares(func(s stat.Shares) float64 { return s.Distance(d) })
}

func countHandlers() map[string]handler {
	return map[string]handler{
		"chi2.contingency": onCounts(stat.Counts.ChiSquared),
		"chi2.gof":         onCounts(stat.Counts.GoodnessOfFit),
		"g.contingency":    onCounts(stat.Counts.G),
		"fisher":           onCounts(stat.Counts.Fisher),
		"cramers_v": func(c *referenceCase, _ map[string]any) (map[string]any, error) {
			return valueAnswer(countsOf(c).CramersV())
		},
		"psi.eps":        divergence(stat.PSI),
		"js_divergence2": divergence(stat.JSDivergence),
		"js_distance_e":  divergence(stat.JSNat),
		"js_distance_2":  divergence(stat.JS),
		"hellinger":      divergence(stat.Hellinger),
		"tvd":            divergence(stat.TVD),
		"l_infinity":     divergence(stat.LInfinity),
		"entropy2": func(c *referenceCase, _ map[string]any) (map[string]any, error) {
			counts := countsOf(c)
			s, err := stat.SharesOf(counts.Ref, counts.Cur)
			return map[string]any{"ref": stat.Entropy(s.P), "cur": stat.Entropy(s.Q)}, err
		},
		"ks.counts.kolmogorov_limit": onLadder(stat.KSLimit),
	}
}

func peerColumn(c *referenceCase, name, part string) peer.Column {
	if c.Kind == "categorical" || slices.Contains(c.names("cat"), name) {
		return peer.Categories(c.present(name, part))
	}
	if c.integers(name) {
		return peer.Integers(c.numbers(name, part))
	}
	return peer.Numbers(c.numbers(name, part))
}

func decisionMembers(d peer.Decision) map[string]any {
	return map[string]any{"score": d.Score, "threshold": d.Threshold, "drift": d.Drift, "method": d.Method}
}

func evidently(c *referenceCase, want map[string]any) (map[string]any, error) {
	method := strings.TrimPrefix(want["name"].(string), "evidently.")
	ref, cur := peerColumn(c, "value", "ref"), peerColumn(c, "value", "cur")
	if method == "auto" {
		d, err := peer.EvidentlyAuto(ref, cur)
		return decisionMembers(d), err
	}
	d, err := peer.Evidently(method, ref, cur)
	return decisionMembers(d), err
}

func nannyUnivariate(c *referenceCase, want map[string]any) (map[string]any, error) {
	method := strings.TrimPrefix(want["name"].(string), "nannyml.")
	f, err := peer.FitNannyML(method, peerColumn(c, "value", "ref"))
	if err != nil {
		return nil, err
	}
	v, p, err := f.Value(peerColumn(c, "value", "cur"))
	return map[string]any{"statistic": v, "p_value": p}, err
}

func evidentlyPreset(c *referenceCase, _ map[string]any) (map[string]any, error) {
	shown := map[string]string{"ks": "K-S p_value", "chisquare": "chi-square p_value", "z": "Z-test p_value",
		"jensenshannon": "Jensen-Shannon distance", "wasserstein": "Wasserstein distance (normed)"}
	columns, all := map[string]any{}, []peer.Decision{}
	for _, name := range append(c.names("num"), c.names("cat")...) {
		d, err := peer.EvidentlyAuto(peerColumn(c, name, "ref"), peerColumn(c, name, "cur"))
		if err != nil {
			return nil, err
		}
		all = append(all, d)
		columns[name] = map[string]any{"method": shown[d.Method], "score": d.Score, "threshold": d.Threshold}
	}
	n, share, drift := peer.EvidentlyDataset(all)
	return map[string]any{"columns": columns, "dataset_drift": drift,
		"drifted": map[string]any{"count": n, "share": share}}, nil
}

func toolHandlers() map[string]handler {
	out := map[string]handler{"evidently.data_drift_preset": evidentlyPreset}
	for _, m := range []string{"auto", "psi", "jensenshannon", "kl_div", "hellinger", "wasserstein", "ks", "anderson",
		"cramer_von_mises", "es", "mannw", "t_test", "chisquare", "z", "g_test", "fisher_exact"} {
		out["evidently."+m] = evidently
	}
	for _, m := range []string{"jensen_shannon", "hellinger", "kolmogorov_smirnov", "wasserstein", "chi2", "l_infinity"} {
		out["nannyml."+m] = nannyUnivariate
	}
	return out
}

func watch(make func() online.Detector) handler {
	return func(c *referenceCase, _ map[string]any) (map[string]any, error) {
		d := make()
		hits, warnings := []int{}, []int{}
		for i, x := range c.numbers("x", "") {
			switch d.Update(x) {
			case online.Drift:
				hits = append(hits, i)
			case online.Warning:
				warnings = append(warnings, i)
			}
		}
		out := map[string]any{"drift_at": hits, "warnings": len(warnings), "first_warning": nil}
		if len(warnings) > 0 {
			out["first_warning"] = warnings[0]
		}
		return out, nil
	}
}

func streamHandlers() map[string]handler {
	adwin := func(delta float64) handler {
		cfg := online.DefaultADWIN()
		cfg.Delta = delta
		return watch(func() online.Detector { return online.NewADWIN(cfg) })
	}
	pageHinkley := func(threshold float64) handler {
		cfg := online.DefaultPageHinkley()
		cfg.Threshold = threshold
		return watch(func() online.Detector { return online.NewPageHinkley(cfg) })
	}
	return map[string]handler{
		"adwin.river":            adwin(0.002),
		"adwin.river.delta05":    adwin(0.05),
		"page_hinkley.river":     pageHinkley(50),
		"page_hinkley.river.t10": pageHinkley(10),
		"ddm.river":              watch(func() online.Detector { return online.NewDDM(online.DefaultDDM()) }),
		"hddma.river":            watch(func() online.Detector { return online.NewHDDMA(online.DefaultHDDMA()) }),
	}
}
