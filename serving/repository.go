package serving

import (
	"fmt"
	"net/http"
	"strings"
)

// index answers Triton's repository index: every version that is loaded.
func (h *handler) index(w http.ResponseWriter, _ *http.Request) error {
	var b strings.Builder
	b.WriteByte('[')
	n := 0
	for _, m := range h.s.Models() {
		for _, v := range m.Versions {
			comma(&b, n)
			n++
			fmt.Fprintf(&b, `{"name":%s,"version":%s,"state":"READY"}`, quote(m.Name), quote(v))
		}
	}
	b.WriteByte(']')
	write(w, http.StatusOK, []byte(b.String()))
	return nil
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
