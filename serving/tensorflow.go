package serving

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/serving/oip"
)

// verbBody is the request of TensorFlow Serving's predict, which KServe's first
// protocol shares: rows ("instances") or columns ("inputs").
type verbBody struct {
	SignatureName string          `json:"signature_name"`
	Instances     json.RawMessage `json:"instances"`
	Inputs        json.RawMessage `json:"inputs"`
}

// names answers GET /v1/models.
func (h *handler) names(w http.ResponseWriter, _ *http.Request) error {
	b := []byte(`{"models":[`)
	for i, m := range h.s.Models() {
		if i > 0 {
			b = append(b, ',')
		}
		b = oip.AppendString(b, m.Name)
	}
	write(w, http.StatusOK, append(b, "]}"...))
	return nil
}

// modelState answers in both forms at once: KServe's members and TensorFlow
// Serving's.
func (h *handler) modelState(w http.ResponseWriter, r *http.Request) error {
	_, st, m, err := h.s.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	versions := versionNames(st)
	if v := r.PathValue("version"); v != "" {
		versions = []string{v}
	}
	b := oip.AppendString([]byte(`{"name":`), m.Name)
	b = append(b, `,"ready":true,"model_version_status":[`...)
	for i, v := range versions {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(oip.AppendString(append(b, `{"version":`...), v), `,"state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}`...)
	}
	write(w, http.StatusOK, append(b, "]}"...))
	return nil
}

// predictVerb answers POST /v1/models/NAME:predict and, below a version,
// VERSION:predict.
func (h *handler) predictVerb(w http.ResponseWriter, r *http.Request) error {
	subject, verb, _ := cutLast(r.PathValue("verb"), ':')
	if verb != "predict" {
		return fmt.Errorf("%w: the verb %q is not known: %s:predict is", ErrUnknownModel, verb, subject)
	}
	name, version := subject, ""
	if m := r.PathValue("model"); m != "" {
		name, version = m, subject
	}
	err := h.s.tooBusy(name)
	if err != nil {
		return err
	}
	sc := h.pool.get()
	defer h.pool.put(sc)
	if sc.body, err = readAll(sc.body[:0], http.MaxBytesReader(w, r.Body, h.s.cfg.MaxBody)); err != nil {
		h.s.refused(name)
		return err
	}
	sc.req.Reset()
	call := h.call(r, &sc.req)
	call.Model, call.Version = name, orElse(version, call.Version)
	_, _, m, err := h.s.model(name, version)
	if err != nil {
		h.s.refused(name)
		return err
	}
	columns, err := m.readVerb(sc.body, &sc.req)
	if err != nil {
		h.s.refused(name)
		return err
	}
	a, err := h.s.predict(r.Context(), sc, call)
	if err != nil {
		return err
	}
	w.Header().Set(variantHeader, a.Variant)
	sc.out = a.appendVerb(sc.out[:0], columns)
	write(w, http.StatusOK, sc.out)
	return nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// readVerb fills req from rows or columns and says which it was.
func (m *Model) readVerb(text []byte, req *oip.Request) (columns bool, err error) {
	var body verbBody
	if err := json.Unmarshal(text, &body); err != nil {
		return false, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if (body.Instances == nil) == (body.Inputs == nil) {
		return false, fmt.Errorf("%w: send either instances (rows) or inputs (columns)", ErrInput)
	}
	rows := body.Instances
	if columns = rows == nil; columns {
		if t := bytes.TrimSpace(body.Inputs); t[0] == '{' {
			return true, m.readColumns(body.Inputs, req)
		}
		rows = body.Inputs
	}
	var list []json.RawMessage
	if err := json.Unmarshal(rows, &list); err != nil || len(list) == 0 {
		return columns, fmt.Errorf("%w: instances is not a list of at least one row", ErrInput)
	}
	if t := bytes.TrimSpace(list[0]); t[0] == '{' {
		return columns, m.readObjects(list, req)
	}
	return columns, m.readMatrix(list, req)
}

// readMatrix reads rows that are lists of numbers.
func (m *Model) readMatrix(list []json.RawMessage, req *oip.Request) error {
	k := len(m.Signature.Inputs)
	t := req.Add(matrixName, oip.FP64, len(list))
	t.Shape = append(t.Shape, int64(k))
	for i, text := range list {
		var row []*float64
		if k == 1 && text[0] != '[' {
			text = append(append(json.RawMessage{'['}, text...), ']')
		}
		if err := json.Unmarshal(text, &row); err != nil {
			return fmt.Errorf("%w: instance %d is not a list of numbers", ErrInput, i)
		}
		if len(row) != k {
			return fmt.Errorf("%w: instance %d has %d values: model %s takes %d (%s)", ErrInput, i, len(row), m.Name, k, m.inputNames())
		}
		for _, v := range row {
			if v == nil {
				t.Floats = append(t.Floats, math.NaN())
			} else {
				t.Floats = append(t.Floats, *v)
			}
		}
	}
	if k == 1 { // one input is a tensor by its own name
		return m.rename(t)
	}
	return nil
}

func (m *Model) rename(t *oip.Tensor) error {
	if m.datatypes[0] != oip.FP32 && m.datatypes[0] != oip.FP64 {
		return fmt.Errorf("%w: input %q is %s: send instances as objects", ErrInput, m.Signature.Inputs[0].Name, m.datatypes[0])
	}
	t.Name, t.Datatype, t.Shape = m.Signature.Inputs[0].Name, m.datatypes[0], t.Shape[:1]
	return nil
}

// readObjects reads rows that name their inputs.
func (m *Model) readObjects(list []json.RawMessage, req *oip.Request) error {
	reader := event.NewFieldReader(event.DefaultDecoderConfig())
	rows := make([]EntityRow, len(list))
	for i, text := range list {
		var err error
		if rows[i].Data, err = readFields(nil, reader, "instance", i, text); err != nil {
			return err
		}
		if err := m.known(rows[i].Data, i); err != nil {
			return err
		}
	}
	return m.fromRows(rows, req)
}

func (m *Model) known(data []event.NamedValue, row int) error {
	for _, v := range data {
		if _, ok := m.encoder.Index(v.Name); !ok {
			return fmt.Errorf("%w: row %d has an unexpected input %q: model %s takes %s", ErrInput, row, v.Name, m.Name, m.inputNames())
		}
	}
	return nil
}

// fromRows makes one tensor per input of rows that have all of them.
func (m *Model) fromRows(rows []EntityRow, req *oip.Request) error {
	var got fetched
	got.reset(m, len(rows))
	for i := range m.Signature.Inputs {
		if err := got.fromData(i, m, rows); err != nil {
			return err
		}
		fill(req.Add(m.Signature.Inputs[i].Name, m.datatypes[i], len(rows)), &got.cols[i])
	}
	return nil
}

// readColumns reads an object of one list per input.
func (m *Model) readColumns(text []byte, req *oip.Request) error {
	var columns map[string][]json.RawMessage
	if err := json.Unmarshal(text, &columns); err != nil {
		return fmt.Errorf("%w: inputs is not an object of lists: %w", ErrInput, err)
	}
	reader := event.NewFieldReader(event.DefaultDecoderConfig())
	var rows []EntityRow
	for name, list := range columns {
		if rows == nil {
			rows = make([]EntityRow, len(list))
		}
		if len(list) != len(rows) || len(list) == 0 {
			return fmt.Errorf("%w: inputs have lists of different lengths, or empty ones", ErrInput)
		}
		for i, v := range list {
			one, err := readFields(nil, reader, "input "+name, i, fmt.Appendf(nil, "{%s:%s}", quote(name), bytes.Trim(v, "[] \n\t")))
			if err != nil {
				return err
			}
			rows[i].Data = append(rows[i].Data, one...)
		}
	}
	for i := range rows {
		if err := m.known(rows[i].Data, i); err != nil {
			return err
		}
	}
	if rows == nil {
		return fmt.Errorf("%w: inputs is empty", ErrInput)
	}
	return m.fromRows(rows, req)
}

// appendVerb writes one value per row, or one list where the model gives more.
func (a *Answer) appendVerb(dst []byte, columns bool) []byte {
	if columns {
		dst = append(dst, `{"outputs":[`...)
	} else {
		dst = append(dst, `{"predictions":[`...)
	}
	for row := range a.Rows {
		if row > 0 {
			dst = append(dst, ',')
		}
		if a.Width == 1 {
			dst = event.AppendFloat(dst, float64(a.Values[row]))
			continue
		}
		for k := range a.Width {
			dst = append(dst, "[,"[min(k, 1)])
			dst = event.AppendFloat(dst, float64(a.Values[row*a.Width+k]))
		}
		dst = append(dst, ']')
	}
	return append(dst, "]}"...)
}
