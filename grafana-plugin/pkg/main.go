// Command gpx_kedge is the backend half of the Kedge data source: Grafana
// starts it and speaks to it over gRPC.
package main

import (
	"os"
	"runtime"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"

	"github.com/kedge-ml/kedge/grafana-plugin/pkg/plugin"
)

// idleHeap is memory that is asked for and never touched, so it costs none. The
// collector runs when the heap has doubled: a query leaves half a megabyte
// behind, and beside a live heap of four every tenth would meet a collection,
// now one of a hundred and fifty. More is worse: without any collection a query
// takes 2.0 ms of processor instead of 1.1, since every page it writes is new.
const idleHeap = 64 << 20

func main() {
	// At Debug the SDK says of every query that it starts, and again when it has
	// ended, with its time; Grafana would read both and drop the first.
	backend.Logger = log.NewWithLevel(log.Info)
	idle := make([]byte, idleHeap)
	defer runtime.KeepAlive(idle)
	if err := datasource.Manage("kedgeml-kedge-datasource", plugin.New, datasource.ManageOpts{}); err != nil {
		log.DefaultLogger.Error(err.Error())
		os.Exit(1)
	}
}
