package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

func (c *cli) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show what runs and how it is doing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s app.Status
			if err := c.get(cmd.Context(), "/v1/status", &s); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			printStatus(cmd.OutOrStdout(), &s)
			if !s.Health.Ready {
				return errors.New("not ready")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printStatus(w io.Writer, s *app.Status) {
	fmt.Fprintf(w, "kedge %s, up %s, namespace %s, roles %s\n", s.Version, s.Uptime, s.Namespace, strings.Join(s.Roles, ", "))
	fmt.Fprintf(w, "page  http://%s/    kafka  %s    data  %s\n\n", s.HTTP, strings.Join(s.Kafka, ","), s.DataDir)
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, p := range s.Health.Parts {
		state := "ready"
		if !p.Ready {
			state = "NOT READY: " + p.Reason
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", p.Name, state, p.Detail)
	}
	tw.Flush()
	if len(s.Partitions) == 0 {
		return
	}
	fmt.Fprintln(w)
	fmt.Fprintln(tw, "topic\tpartition\tepoch\tposition\tlag\trows\tdead letters\trepeats\tmissing\t")
	for _, p := range s.Partitions {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Topic, p.Partition, p.Epoch, p.Position, p.Lag, p.Rows, p.DeadLetters, p.Duplicates, p.Missing, cmp.Or(p.Waiting, p.Throttled))
	}
	tw.Flush()
}

func (c *cli) topicsCommand() *cobra.Command {
	var printAll, asJSON bool
	cmd := &cobra.Command{
		Use: "topics", Short: "Show the topics that kedge needs, their settings and least permissions", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list app.TopicList
			if err := c.get(cmd.Context(), "/v1/topics", &list); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			printTopics(cmd.OutOrStdout(), &list, printAll)
			return nil
		},
	}
	cmd.Flags().BoolVar(&printAll, "print", false, "print commands that make the topics and permissions")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printTopics(w io.Writer, list *app.TopicList, commands bool) {
	if !commands {
		tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(tw, "topic\tpartitions\treplication\tsettings\tpurpose")
		for _, t := range list.Topics {
			fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%s\n", t.Name, t.Partitions, t.Replication, strings.Join(settings(t), " "), t.Purpose)
		}
		tw.Flush()
		return
	}
	fmt.Fprintln(w, "# topics")
	for _, t := range list.Topics {
		fmt.Fprintf(w, "kafka-topics.sh --bootstrap-server \"$BROKERS\" --create --if-not-exists --topic %s --partitions %d --replication-factor %d", t.Name, t.Partitions, t.Replication)
		for _, s := range settings(t) {
			fmt.Fprintf(w, " --config %s", s)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "# least permissions: kedge is its own user, producers are yours")
	for _, t := range list.Topics {
		for _, a := range t.ACLs {
			printACL(w, a)
		}
	}
	for _, a := range list.ACLs {
		printACL(w, a)
	}
}

func settings(t app.TopicEntry) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(t.Config)) {
		out = append(out, k+"="+t.Config[k])
	}
	return out
}

func printACL(w io.Writer, a app.ACL) {
	kind, name, _ := strings.Cut(a.Resource, ":")
	resource := "--" + strings.ToLower(kind) + " " + name
	if kind == "Cluster" {
		resource = "--cluster"
	}
	fmt.Fprintf(w, "kafka-acls.sh --bootstrap-server \"$BROKERS\" --add --allow-principal User:%s --operation %s %s\n", a.Principal, a.Operation, resource)
}
