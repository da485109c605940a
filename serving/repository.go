package serving

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// entry is one line of the repository index.
type entry struct{ name, version, state, reason string }

// known lists every version that is loaded, and every model that was unloaded
// by hand or whose deployment is not in force.
func (s *Server) known() []entry {
	var out []entry
	loaded := map[string]bool{}
	for _, m := range s.Models() {
		loaded[m.Name] = true
		for _, v := range m.Versions {
			out = append(out, entry{m.Name, v, "READY", ""})
		}
	}
	if f := s.repository.Load(); f != nil {
		for name, why := range f.Faults() {
			if !loaded[name] {
				out = append(out, entry{name, "", "UNAVAILABLE", why})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return out
}

// index answers Triton's repository index.
func (h *handler) index(w http.ResponseWriter, _ *http.Request) error {
	var b strings.Builder
	b.WriteByte('[')
	for i, e := range h.s.known() {
		comma(&b, i)
		fmt.Fprintf(&b, `{"name":%s,"version":%s,"state":%s`, quote(e.name), quote(e.version), quote(e.state))
		if e.reason != "" {
			fmt.Fprintf(&b, `,"reason":%s`, quote(e.reason))
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	write(w, http.StatusOK, []byte(b.String()))
	return nil
}

// load carries a model's deployment out again, from its artefacts.
func (h *handler) load(w http.ResponseWriter, r *http.Request) error {
	if err := h.s.reload(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// unload stops serving a model until it is loaded or its deployment changes.
func (h *handler) unload(w http.ResponseWriter, r *http.Request) error {
	if err := h.s.retire(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) reload(ctx context.Context, name string) error {
	f := s.repository.Load()
	if f == nil {
		return fmt.Errorf("load: %w: %q has no deployment", ErrUnknownModel, name)
	}
	return f.Load(ctx, name)
}

func (s *Server) retire(_ context.Context, name string) error {
	if f := s.repository.Load(); f != nil {
		return f.Unload(name)
	}
	return s.Unload(name, "")
}

// config answers in the shape of Triton's model configuration, as far as it
// has a meaning here.
func (h *handler) config(w http.ResponseWriter, r *http.Request) error {
	_, _, m, err := h.s.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{"name":%s,"platform":%s,"backend":"kedge","max_batch_size":0,"input":[`, quote(m.Name), quote(m.platform()))
	for i, in := range m.tensors() {
		comma(&b, i)
		fmt.Fprintf(&b, `{"name":%s,"data_type":"TYPE_%s","dims":%s}`, quote(in.name), tritonType(string(in.datatype)), shape(in.dims))
	}
	fmt.Fprintf(&b, `],"output":[{"name":%s,"data_type":"TYPE_FP32","dims":%s}]}`, quote(m.output()), shape(m.outputDims()))
	write(w, http.StatusOK, []byte(b.String()))
	return nil
}

// tritonType is Triton's name of a datatype in configurations.
func tritonType(datatype string) string {
	if datatype == "BYTES" {
		return "STRING"
	}
	return datatype
}

func (h *handler) statistics(w http.ResponseWriter, r *http.Request) error {
	d, st, _, err := h.s.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	write(w, http.StatusOK, []byte(`{"model_stats":[`+d.statistics(orElse(r.PathValue("version"), st.routing.Champion))+`]}`))
	return nil
}

func (h *handler) allStatistics(w http.ResponseWriter, _ *http.Request) error {
	var b strings.Builder
	b.WriteString(`{"model_stats":[`)
	for i, m := range h.s.Models() {
		comma(&b, i)
		if d := h.s.find(m.Name); d != nil {
			b.WriteString(d.statistics(m.Routing.Champion))
		}
	}
	b.WriteString(`]}`)
	write(w, http.StatusOK, []byte(b.String()))
	return nil
}

// statistics counts per model, under the version asked for.
func (d *deployed) statistics(version string) string {
	ok, failed := d.stats.success.Load(), d.stats.failure.Load()
	queue, compute := d.stats.queueNS.Load(), d.stats.computeNS.Load()
	pair := func(name string, n, ns uint64) string { return fmt.Sprintf(`%q:{"count":%d,"ns":%d}`, name, n, ns) }
	parts := []string{
		pair("success", ok, queue+compute), pair("fail", failed, 0), pair("queue", ok, queue),
		pair("compute_input", ok, 0), pair("compute_infer", ok, compute), pair("compute_output", ok, 0),
		pair("cache_hit", 0, 0), pair("cache_miss", 0, 0),
	}
	return fmt.Sprintf(`{"name":%s,"version":%s,"last_inference":%d,"inference_count":%d,"execution_count":%d,"inference_stats":{%s},"batch_stats":[]}`,
		quote(d.name), quote(version), d.stats.lastMS.Load(), d.stats.rows.Load(), ok, strings.Join(parts, ","))
}
