package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
)

// runFlags override the configuration file and the environment.
type runFlags struct {
	file           string
	dataDir        string
	http           string
	kafka          string
	clickhouseHTTP string
	brokers        string
	clickhouse     string
	roles          string
	demo           bool
}

func (f *runFlags) add(cmd *cobra.Command) {
	d := app.DefaultConfig()
	fl := cmd.Flags()
	fl.StringVar(&f.file, "config", "", "configuration file, YAML")
	fl.StringVar(&f.dataDir, "data-dir", d.DataDir, "where everything is kept")
	fl.StringVar(&f.http, "http", d.HTTP.Listen, "address of the API and the page")
	fl.StringVar(&f.kafka, "kafka", d.Kafka.Listen, "address of the embedded broker")
	fl.StringVar(&f.clickhouseHTTP, "clickhouse-http", "", "address of the embedded engine's read-only ClickHouse port (off)")
	fl.StringVar(&f.brokers, "brokers", "", "outside Kafka brokers, comma-separated; the embedded one is not started")
	fl.StringVar(&f.clickhouse, "clickhouse", "", "outside ClickHouse, http://user:password@host:8123; the embedded engine is not opened")
	fl.StringVar(&f.roles, "roles", "", "roles of this process, comma-separated (all)")
	fl.BoolVar(&f.demo, "demo", false, "produce the built-in demo stream")
}

// config is the file, overridden by the environment, overridden by flags.
func (f *runFlags) config(cmd *cobra.Command) (app.Config, error) {
	cfg, err := app.LoadConfig(f.file, os.Environ())
	if err != nil {
		return cfg, err
	}
	for name, set := range map[string]func(){
		"data-dir":        func() { cfg.DataDir = f.dataDir },
		"http":            func() { cfg.HTTP.Listen = f.http },
		"kafka":           func() { cfg.Kafka.Listen = f.kafka },
		"clickhouse-http": func() { cfg.ClickHouse.Listen = f.clickhouseHTTP },
		"brokers":         func() { cfg.Kafka.Brokers = app.SplitList(f.brokers) },
		"clickhouse":      func() { cfg.ClickHouse.URL = app.ServerURL(f.clickhouse) },
		"roles":           func() { cfg.Roles = app.SplitList(f.roles) },
		"demo":            func() { cfg.Demo.Enabled = f.demo },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	return cfg, nil
}

// forgetSecrets takes the variables that settings refer to (env:NAME) out of
// this process's environment, once they are read: training processes and
// programs of users inherit it.
func (f *runFlags) forgetSecrets() error {
	for _, name := range app.SecretVariables(f.file, os.Environ()) {
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("take %s out of the environment: %w", name, err)
		}
	}
	return nil
}

func (c *cli) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run", Short: "Run the server", Args: cobra.NoArgs,
		Long: "Run the server. Without further flags it brings its own broker and its own ClickHouse engine.\nThe configuration is the file, overridden by KEDGE_… variables, overridden by flags.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config(cmd)
			if err == nil {
				err = f.forgetSecrets()
			}
			if err != nil {
				return err
			}
			a, err := app.New(cmd.Context(), cfg, version, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			go func() {
				for {
					select {
					case <-hup:
						a.ReloadFrom(cmd.Context(), func() (app.Config, error) { return f.config(cmd) })
					case <-cmd.Context().Done():
						return
					}
				}
			}()
			return a.Run(cmd.Context())
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file, without a server", Args: exactly(1, "check"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := app.LoadConfig(args[0], nil)
			if err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return fmt.Errorf("configuration %s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return nil
		},
	}
}

func (c *cli) configCommand() *cobra.Command {
	return &cobra.Command{
		Use: "config", Short: "Show the running server's configuration, secrets hidden", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := c.send(cmd.Context(), "GET", "/v1/config", "application/yaml", nil)
			if err == nil {
				_, err = cmd.OutOrStdout().Write(b)
			}
			return err
		},
	}
}

func (c *cli) versionCommand() *cobra.Command {
	var short bool
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !short {
				fmt.Fprint(cmd.OutOrStdout(), "kedge ")
			}
			fmt.Fprintln(cmd.OutOrStdout(), version)
			return nil
		},
	}
	cmd.Flags().BoolVar(&short, "short", false, "only the version")
	return cmd
}

// exactly wants n arguments.
func exactly(n int, command string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return &usageError{err, command}
		}
		return nil
	}
}
