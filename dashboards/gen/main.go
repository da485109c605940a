// Command gen writes the dashboards' JSON; run it by `go generate ./dashboards`.
package main

import (
	"log"
	"os"

	"github.com/kedge-ml/kedge/dashboards"
)

func main() {
	for _, d := range dashboards.All() {
		b, err := d.Render()
		if err == nil {
			err = os.WriteFile(d.UID+".json", b, 0o644)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}
