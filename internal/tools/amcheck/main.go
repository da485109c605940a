// Command amcheck holds a body of POST /api/v2/alerts against Alertmanager's own
// models: it reads one from its input and says what Alertmanager would refuse.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/go-openapi/strfmt"
	"github.com/prometheus/alertmanager/api/v2/models"
)

func main() {
	if err := check(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(in io.Reader) error {
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	var alerts models.PostableAlerts
	if err := d.Decode(&alerts); err != nil {
		return fmt.Errorf("no alerts: %w", err)
	}
	if err := alerts.Validate(strfmt.Default); err != nil {
		return err
	}
	fmt.Println(len(alerts))
	return nil
}
