package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/kedge-ml/kedge/serving/conformance"
)

// CheckOIP asks a server of the Open Inference Protocol, anybody's, whether it
// keeps the protocol's rules, and writes one line per rule. The error counts
// the rules that it breaks.
func CheckOIP(ctx context.Context, client *http.Client, server, model string, w io.Writer) error {
	s := conformance.Suite{Server: server, Model: model, HTTP: client}
	results, err := s.Run(ctx)
	broken := 0
	for _, r := range results {
		switch {
		case r.Broken != "":
			broken++
			fmt.Fprintf(w, "FAIL  %s: %s\n", r.Check, r.Broken)
		case r.Skipped != "":
			fmt.Fprintf(w, "skip  %s: %s\n", r.Check, r.Skipped)
		default:
			fmt.Fprintf(w, "ok    %s\n", r.Check)
		}
	}
	if broken > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d rules are broken", broken, len(results)))
	}
	return err
}
