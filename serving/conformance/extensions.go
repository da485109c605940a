package conformance

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// extended checks what the server claims of Triton's extensions.
func (s *Suite) extended() {
	claim := func(extension, name string, f func() error) {
		if slices.Contains(s.extensions, extension) {
			s.check(name, f)
		} else {
			s.skip(name, "the server does not claim "+extension)
		}
	}
	claim("binary_tensor_data", "binary tensors are taken and given", s.binary)
	claim("binary_tensor_data", "truncated binary data is refused", func() error {
		head, tail := s.binaryRequest()
		if head == nil {
			return nil
		}
		return s.refused(s.model()+"/infer", append(head, tail[:len(tail)-1]...), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	})
	claim("model_repository", "the repository index lists the model", func() error {
		var index []struct{ Name string }
		if err := s.read(http.MethodPost, "/v2/repository/index", []byte("{}"), &index); err != nil {
			return err
		}
		if !slices.ContainsFunc(index, func(m struct{ Name string }) bool { return m.Name == s.Model }) {
			return fmt.Errorf("%+v", index)
		}
		return nil
	})
	claim("statistics", "statistics count an inference", s.statistics)
	claim("model_configuration", "the configuration names the model's inputs", func() error {
		var c struct {
			Name  string
			Input []struct {
				Name     string
				DataType string `json:"data_type"`
			}
		}
		if err := s.read(http.MethodGet, s.model()+"/config", nil, &c); err != nil {
			return err
		}
		if c.Name != s.Model || len(c.Input) != len(s.meta.Inputs) || !strings.HasPrefix(c.Input[0].DataType, "TYPE_") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

// binaryRequest has FP32 inputs as bytes; nil where the model takes others.
func (s *Suite) binaryRequest() (head, tail []byte) {
	r := s.request()
	for i := range r.Inputs {
		if r.Inputs[i].Datatype != "FP32" {
			return nil, nil
		}
		n := strings.Count(string(r.Inputs[i].Data), "1.0")
		for range n {
			tail = binary.LittleEndian.AppendUint32(tail, 0x3f800000)
		}
		r.Inputs[i].Data, r.Inputs[i].Parameters = nil, map[string]any{"binary_data_size": 4 * n}
	}
	r.Parameters = map[string]any{"binary_data_output": true}
	return must(json.Marshal(r)), tail
}

func (s *Suite) binary() error {
	head, tail := s.binaryRequest()
	if head == nil {
		return nil
	}
	a, err := s.send(http.MethodPost, s.model()+"/infer", append(head, tail...), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(a.header.Get("Inference-Header-Content-Length"))
	if a.status != http.StatusOK || err != nil || n > len(a.body) {
		return fmt.Errorf("status %d, Inference-Header-Content-Length %q: %.200s", a.status, a.header.Get("Inference-Header-Content-Length"), a.body)
	}
	var out inference
	if err := json.Unmarshal(a.body[:n], &out); err != nil || len(out.Outputs) == 0 {
		return fmt.Errorf("header %.200s", a.body[:n])
	}
	size := 0.0
	for _, o := range out.Outputs {
		v, _ := o.Parameters["binary_data_size"].(float64)
		size += v
	}
	if int(size) != len(a.body)-n {
		return fmt.Errorf("binary_data_size sums to %v and %d bytes follow", size, len(a.body)-n)
	}
	return nil
}

func (s *Suite) statistics() error {
	count := func() (float64, error) {
		var st struct {
			ModelStats []struct {
				InferenceCount float64 `json:"inference_count"`
			} `json:"model_stats"`
		}
		err := s.read(http.MethodGet, s.model()+"/stats", nil, &st)
		if err == nil && len(st.ModelStats) == 0 {
			err = errors.New("no model_stats")
		}
		n := 0.0
		for _, m := range st.ModelStats {
			n += m.InferenceCount
		}
		return n, err
	}
	before, err := count()
	if err != nil {
		return err
	}
	if _, err := s.infer(s.request()); err != nil {
		return err
	}
	after, err := count()
	if err == nil && !(after > before) {
		err = fmt.Errorf("inference_count was %v and is %v", before, after)
	}
	return err
}
