// Command gpx_kedge is the backend half of the Kedge data source: Grafana
// starts it and speaks to it over gRPC.
package main

import (
	"os"

	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"

	"github.com/kedge-ml/kedge/grafana-plugin/pkg/plugin"
)

func main() {
	if err := datasource.Manage("kedgeml-kedge-datasource", plugin.New, datasource.ManageOpts{}); err != nil {
		log.DefaultLogger.Error(err.Error())
		os.Exit(1)
	}
}
