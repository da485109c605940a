package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

func (c *cli) sendCommand() *cobra.Command {
	return &cobra.Command{
		Use: "send [FILE]", Short: "Send events, JSON lines, from a file or standard input", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			accepted, rejected, err := c.streamEvents(cmd.Context(), io.NopCloser(in))
			fmt.Fprintf(cmd.ErrOrStderr(), "%d accepted, %d rejected\n", accepted, rejected)
			return err
		},
	}
}

// deadLetterFlags select dead letters.
type deadLetterFlags struct {
	reason, topic, from, to, format string
	limit                           int
}

func (f *deadLetterFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.reason, "reason", "", "only this reason")
	fl.StringVar(&f.topic, "topic", "", "only this topic")
	fl.StringVar(&f.from, "from", "", "begin: RFC 3339, or how long ago")
	fl.StringVar(&f.to, "to", "", "end, likewise")
	fl.IntVar(&f.limit, "limit", 0, "at most so many")
}

func (f *deadLetterFlags) times(now time.Time) (from, to time.Time, err error) {
	if from, err = parseTime(f.from, now); err == nil {
		to, err = parseTime(f.to, now)
	}
	return from, to, err
}

func (c *cli) deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dead-letters", Short: "Records that could not become rows", Args: cobra.NoArgs}
	cmd.AddCommand(c.deadLettersList(), c.deadLettersReplay())
	return cmd
}

func (c *cli) deadLettersList() *cobra.Command {
	var f deadLetterFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List them, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, to, err := f.times(time.Now())
			if err != nil {
				return &usageError{err, "dead-letters list"}
			}
			q := url.Values{}
			for name, value := range map[string]string{"reason": f.reason, "topic": f.topic, "from": stamp(from), "to": stamp(to)} {
				if value != "" {
					q.Set(name, value)
				}
			}
			if f.limit > 0 {
				q.Set("limit", strconv.Itoa(f.limit))
			}
			return c.printFrames(cmd, http.MethodGet, "/v1/dead-letters?"+q.Encode(), nil, f.format)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&f.format, "output", "o", "table", "table, json, csv or arrow")
	return cmd
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

func (c *cli) deadLettersReplay() *cobra.Command {
	var f deadLetterFlags
	cmd := &cobra.Command{
		Use: "replay", Short: "Produce them again, each to its own topic", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, to, err := f.times(time.Now())
			if err != nil {
				return &usageError{err, "dead-letters replay"}
			}
			body := map[string]any{}
			for name, value := range map[string]string{"reason": f.reason, "topic": f.topic, "from": stamp(from), "to": stamp(to)} {
				if value != "" {
					body[name] = value
				}
			}
			if f.limit > 0 {
				body["limit"] = f.limit
			}
			b, err := c.send(cmd.Context(), http.MethodPost, "/v1/dead-letters/replay", "application/json", body)
			if err != nil {
				return err
			}
			var a app.ReplayAnswer
			if err := json.Unmarshal(b, &a); err != nil {
				return fmt.Errorf("read the answer of %s: %w", c.server, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d replayed, %d skipped because their bytes were cut on storing\n", a.Replayed, a.Skipped)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}
