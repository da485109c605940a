// Command floor is a data source that does nothing of its own: what a query
// through it takes is the price of Grafana's SDK and its gRPC, below which no
// plugin gets. It answers a query of the kind "nothing" with no frame, and any
// other with the frames that lie at /prepared of its address, fetched once and
// written anew by the SDK for every query.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

func main() {
	idle := make([]byte, 64<<20) // as Kedge's own has it: the collectors of both run as seldom
	defer runtime.KeepAlive(idle)
	if err := datasource.Manage("kedgeml-floor-datasource", prepare, datasource.ManageOpts{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type floor struct{ frames data.Frames }

func prepare(ctx context.Context, s backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/prepared", http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	f, err := data.UnmarshalArrowFrame(b)
	if err != nil {
		return nil, fmt.Errorf("read the prepared frame: %w", err)
	}
	return &floor{data.Frames{f}}, nil
}

// QueryData answers each query with the prepared frames, or with none.
func (f *floor) QueryData(_ context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	res := backend.NewQueryDataResponse()
	for _, q := range req.Queries {
		var asked struct {
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(q.JSON, &asked); err != nil {
			return nil, err
		}
		if asked.Kind == "nothing" {
			res.Responses[q.RefID] = backend.DataResponse{}
			continue
		}
		res.Responses[q.RefID] = backend.DataResponse{Frames: f.frames}
	}
	return res, nil
}
