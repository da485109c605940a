package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

func (c *cli) importCommand() *cobra.Command {
	f := replayFlags{speed: "max"}
	cmd := &cobra.Command{
		Use: "import FILE --map FILE", Short: "Store the history in a CSV, Parquet or JSON lines file, past the broker", Args: exactly(1, "import"),
		Long: "Store the history in a file: features, predictions, labels. The mapping is that of `kedge replay`; the rows go straight to\n" +
			"the store, in an epoch of their own, and the ledger accounts for them. The same file with the same mapping is imported\n" +
			"once: a second run adds nothing, and one that was interrupted goes on. Monitors learn from imported rows and open no\n" +
			"incident over them. --known-at says when the rows could have been known.",
		Example: "  kedge import loans-2025.parquet --map loans.yaml --known-at event_time",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.open(args[0], time.Now())
			if err != nil {
				return err
			}
			defer r.file.Close()
			id, err := importID(args[0], f)
			if err != nil {
				return err
			}
			return c.importFile(cmd, r, id, f.quiet)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.mapping, "map", "", "mapping file, YAML")
	fl.StringVar(&f.knownAt, "known-at", "", "when rows could have been known: a column, event_time, or now")
	fl.StringVar(&f.hashKey, "hash-key-file", "", "file with the key for hashed fields")
	fl.BoolVar(&f.quiet, "quiet", false, "no progress bar")
	_ = cmd.MarkFlagRequired("map") // the flag exists
	cmd.AddCommand(importFeastCommand())
	return cmd
}

// importID is the digest of whatever decides the events: the file, its mapping,
// and when its rows could have been known.
func importID(path string, f replayFlags) (string, error) {
	mapping, err := os.ReadFile(f.mapping)
	if err != nil {
		return "", err
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	fmt.Fprintf(h, "kedge import 1\n%q\n%d\n", f.knownAt, len(mapping))
	h.Write(mapping)
	if _, err := io.Copy(h, file); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// importing is an import on its way to the server.
type importing struct {
	c          *cli
	log        io.Writer
	id, file   string
	at         int64 // number of the next event of the file
	next       int64 // how many the server has
	before     int64 // how many it had when this began
	rows, dead int64
}

func (c *cli) importFile(cmd *cobra.Command, r *replay, id string, quiet bool) error {
	r.bytes, r.events = 8<<20, 50_000 // the larger the block, the less the store has to merge
	out := cmd.ErrOrStderr()
	bar := progressbar.NewOptions64(r.file.Total(), progressbar.OptionSetWriter(out), progressbar.OptionSetVisibility(!quiet && isTerminal(out)),
		progressbar.OptionSetDescription(r.name), progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond))
	m := &importing{c: c, log: out, id: id, file: filepath.Base(r.name)}
	if err := m.begin(cmd.Context()); err != nil {
		return err
	}
	m.before = m.next
	err := r.each(cmd.Context(), func(lines []byte, events, rows int) error {
		if err := m.add(cmd.Context(), lines, events); err != nil {
			return err
		}
		return bar.Add(rows)
	})
	_ = bar.Exit() // drawing is not what this is about
	fmt.Fprintf(out, "\n%d events imported: %d rows, %d dead letters; %d were there already, %d rows of the file faulty\n", m.next-m.before, m.rows, m.dead, min(m.before, m.at), r.bad)
	return errors.Join(err, r.result())
}

// begin finds where the import stands. While the server waits for what an
// earlier try sent, so does this.
func (m *importing) begin(ctx context.Context) error {
	for try := 0; ; try++ {
		err := m.ask(ctx)
		var answer *query.Error
		if !errors.As(err, &answer) || answer.Code != web.CodeBusy || try == busyTries {
			return err
		}
		if try == 0 {
			fmt.Fprintln(m.log, answer.Message)
		}
		if err := sleep(ctx, 2*time.Second); err != nil {
			return err
		}
	}
}

// busyTries is how often a busy import is asked for again: two minutes.
const busyTries = 60

func (m *importing) ask(ctx context.Context) error {
	b, err := m.c.send(ctx, http.MethodPost, "/v1/imports", "application/json", map[string]string{"id": m.id, "file": m.file})
	if err != nil {
		return err
	}
	var s app.ImportState
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read the answer of %s: %w", m.c.server, err)
	}
	m.next = s.Next
	return nil
}

// add sends a batch, less what the server has. It begins again after a failure
// that may pass: the server says then whether the batch got in.
func (m *importing) add(ctx context.Context, lines []byte, events int) error {
	first := m.at
	m.at += int64(events)
	for try := range importTries {
		if m.next >= m.at {
			return nil
		}
		err := m.send(ctx, skipLines(lines, m.next-first))
		var answer *query.Error
		if err == nil || try == importTries-1 || errors.As(err, &answer) && answer.Status < 500 && answer.Status != http.StatusConflict || ctx.Err() != nil {
			return err
		}
		if err := sleep(ctx, 200*time.Millisecond<<try); err != nil {
			return err
		}
		if err := m.begin(ctx); err != nil && try == importTries-2 {
			return err
		}
	}
	return nil
}

// importTries is how often a batch is sent before the import gives up.
const importTries = 6

func skipLines(lines []byte, n int64) []byte {
	for ; n > 0; n-- {
		lines = lines[bytes.IndexByte(lines, '\n')+1:]
	}
	return lines
}

func (m *importing) send(ctx context.Context, lines []byte) error {
	q := url.Values{"from": {strconv.FormatInt(m.next, 10)}}
	b, err := m.c.client().Send(ctx, http.MethodPost, "/v1/imports/"+m.id+"/events?"+q.Encode(), "application/json", lines)
	if err != nil {
		return m.c.explain(err)
	}
	var r app.ImportResult
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("read the answer of %s: %w", m.c.server, err)
	}
	m.next, m.rows, m.dead = r.Next, m.rows+r.Rows, m.dead+r.DeadLetters
	return nil
}
