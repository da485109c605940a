package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

func (c *cli) eraseCommand() *cobra.Command {
	var entity []string
	var out string
	cmd := &cobra.Command{
		Use: "erase --entity KEY=VALUE", Short: "Erase a person or thing from everything that Kedge keeps, and certify it", Args: noArgs,
		Long: "Erase an entity for good: from online tables, every table, dead letters and the embedded broker's log. What is sent of\n" +
			"it from now on is refused, by a keyed hash. The certificate names the hash, what was there before and after, logs that\n" +
			"only their retention clears, and models that are due to be trained anew. There is no way back.",
		Example: "  kedge erase --entity driver_id=1001 --out certificate.json\n  kedge erase --entity customer=c7 --entity zone=north",
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := app.EntityDelete{Entity: map[string]string{}}
			for _, e := range entity {
				name, value, ok := strings.Cut(e, "=")
				if _, twice := in.Entity[name]; !ok || name == "" || twice {
					return &usageError{fmt.Errorf("%q: want KEY=VALUE, each key once", e), "erase"}
				}
				in.Entity[name] = value
			}
			if len(in.Entity) == 0 {
				return &usageError{fmt.Errorf("name an entity: --entity KEY=VALUE"), "erase"}
			}
			b, err := c.send(cmd.Context(), http.MethodPost, "/v1/erasures", "application/json", in)
			if err != nil {
				return err
			}
			return printErasure(cmd, b, out)
		},
	}
	cmd.Flags().StringArrayVar(&entity, "entity", nil, "a part of its key, as KEY=VALUE; may be repeated")
	cmd.Flags().StringVar(&out, "out", "", "write the certificate to this file")
	return cmd
}

// printErasure says what went; the certificate goes to the file, or to standard
// output where none is named.
func printErasure(cmd *cobra.Command, b []byte, file string) error {
	var cert app.ErasureCertificate
	if err := json.Unmarshal(b, &cert); err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	text, err := json.MarshalIndent(cert, "", "  ")
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if file == "" {
		_, err := fmt.Fprintln(w, string(text))
		return err
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	for _, v := range cert.Views {
		fmt.Fprintf(w, "view %s: %d keys left memory\n", v.View, v.Keys)
	}
	for _, t := range cert.Tables {
		if t.Before > 0 {
			fmt.Fprintf(w, "table %s: %d rows before, %d after\n", t.Table, t.Before, t.After)
		}
	}
	for _, l := range cert.Outside {
		fmt.Fprintf(w, "topic %s: not Kedge's to clear, until %v\n", l.Topic, l.Until)
	}
	for _, o := range cert.Unerased {
		fmt.Fprintf(w, "outside table %s: %d rows are not Kedge's to remove (view %s)\n", o.Table, o.Rows, o.View)
	}
	for _, m := range cert.Retrain {
		fmt.Fprintf(w, "retrain due: %s %s (%s): %s\n", m.Model, m.Version, m.Stage, m.Reason)
	}
	_, err = fmt.Fprintf(w, "certificate %s in %s\n", cert.SHA256, file)
	return err
}
