// Command kedge watches what models are fed, what they answer and what turned
// out true. `kedge run` is the server; all other commands but check talk to
// one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status: 0 done, 1 failed,
// 2 called wrongly, 3 (compare only) drift.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "kedge: %v\nTry: %s --help\n", err, strings.TrimSpace("kedge "+strings.TrimSpace(usage.command)))
		return 2
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "required flag"), strings.HasPrefix(err.Error(), "if any flags in the group"):
		fmt.Fprintf(stderr, "kedge: %v\nTry: kedge --help\n", err)
		return 2
	}
	fmt.Fprintf(stderr, "kedge: %v\n", err)
	var own *exitError
	if errors.As(err, &own) {
		return own.status
	}
	return 1
}

// usageError is a command line that cannot be understood.
type usageError struct {
	error
	command string
}

func (e *usageError) Unwrap() error { return e.error }

func rootCommand() *cobra.Command {
	c := &cli{}
	root := &cobra.Command{
		Use:           "kedge",
		Short:         "Watches models: what they are fed, what they answer, what turned out true",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err, strings.TrimPrefix(cmd.CommandPath(), "kedge")}
	})
	root.PersistentFlags().StringVar(&c.server, "server", envOr("KEDGE_SERVER", "http://127.0.0.1:7070"), "address of a running kedge")
	root.PersistentFlags().StringVar(&c.key, "key", "", "API key, or file:PATH of one (KEDGE_KEY)")
	root.PersistentFlags().StringVar(&c.ca, "ca", os.Getenv("KEDGE_CA"), "file with the authority of the server's certificate, when the system does not know it")
	root.PersistentFlags().StringVar(&c.namespace, "in", os.Getenv("KEDGE_IN"), "namespace to act in, when the key has several")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return c.prepare() }
	root.AddCommand(
		c.runCommand(), c.checkCommand(), c.configCommand(), c.versionCommand(),
		c.statusCommand(), c.queryCommand(), c.searchCommand(), c.topicsCommand(), c.deadLettersCommand(), c.sendCommand(), c.replayCommand(), unpackCommand(),
		c.getCommand(), c.planCommand(), c.applyCommand(), c.deleteCommand(), c.eraseCommand(), c.historyCommand(), c.sourceCommand(),
		c.backupCommand(), restoreCommand(), c.doctorCommand(),
		c.trainCommand(), workerCommand(), onnxWorkerCommand(), c.modelCommand(), c.promoteCommand(),
		c.featuresCommand(), c.importCommand(),
		c.driftCommand(), c.performanceCommand(), c.monitorCommand(), c.incidentCommand(), c.reportCommand(), c.compareCommand(), c.referenceCommand(),
		c.rolloutCommand(), c.conformanceCommand(), c.keysCommand(), c.auditCommand(),
	)
	declare(root)
	return root
}

// noArgs makes a word that is no command an error instead of the help text.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("unknown command %q", args[0]), ""}
	}
	return nil
}

func envOr(name, fallback string) string {
	if v, ok := os.LookupEnv(name); ok {
		return v
	}
	return fallback
}
