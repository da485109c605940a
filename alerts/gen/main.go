// Command gen writes the alert rules: run it by go generate ./alerts.
package main

import (
	"fmt"
	"os"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/dashboards"
)

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write() error {
	rules, err := alerts.Render(alerts.All(), dashboards.PanelID)
	if err != nil {
		return err
	}
	own, err := alerts.RenderPrometheus(alerts.Prometheus())
	if err != nil {
		return err
	}
	if err := os.WriteFile("kedge-rules.yaml", rules, 0o644); err != nil {
		return err
	}
	return os.WriteFile("prometheus-rules.yaml", own, 0o644)
}
