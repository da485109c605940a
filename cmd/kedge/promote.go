package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/app"
	"github.com/kedge-ml/kedge/query"
)

// modelRef splits NAME@REF; without a reference it is the champion.
func modelRef(text string) (name, ref string) {
	name, ref, ok := strings.Cut(text, "@")
	if !ok {
		ref = "champion"
	}
	return name, ref
}

func bundlePath(name string) string {
	return "/v1/registry/models/" + url.PathEscape(name) + "/bundle"
}

// bundleOf asks for a version of a model with all that belongs to it.
func (c *cli) bundleOf(ctx context.Context, model string) ([]byte, error) {
	name, ref := modelRef(model)
	return c.send(ctx, http.MethodGet, bundlePath(name)+"?version="+url.QueryEscape(ref), "application/x-tar", nil)
}

// modelPackage makes a container build folder of a registered model.
func (c *cli) modelPackage() *cobra.Command {
	var p app.Package
	cmd := &cobra.Command{
		Use: "package MODEL[@ALIAS|VERSION] -o DIR", Short: "Make a container build folder, and an OCI image, that serves one model alone", Args: exactly(1, "model package"),
		Long: "Make a folder with a Dockerfile, the root file system that it copies, and the same as an OCI image layout in oci,\n" +
			"which needs no container engine to be made. The image has no base: it holds this binary, the shared libraries that\n" +
			"it needs, the model's artefact and a configuration that serves it alone on port 7070. Which network reaches that\n" +
			"port is up to you: the container asks for no keys unless its configuration is changed.\n\n" +
			"The same version and the same binary make the same digest.",
		Example: "  kedge model package elec@champion -o elec-image\n  docker build -t elec elec-image\n  skopeo copy oci:elec-image/oci docker://registry.example.com/elec:1",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if p.Dir == "" {
				return &usageError{errors.New("want -o DIR"), "model package"}
			}
			if p.Binary == "" {
				if p.Binary, err = os.Executable(); err != nil {
					return err
				}
			}
			if p.Bundle, err = c.bundleOf(cmd.Context(), args[0]); err != nil {
				return err
			}
			out, err := p.Write()
			if err != nil {
				return fmt.Errorf("package %s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "version %s of %s, artefact %s\nimage %s\nfolder %s (Dockerfile, rootfs, oci)\n", out.Version, out.Model, out.Artifact, out.Digest, p.Dir)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&p.Dir, "output", "o", "", "folder to make")
	fs.StringVar(&p.Binary, "binary", "", "kedge for Linux to put into the image; default: this one")
	fs.StringVar(&p.ONNX, "onnxruntime", "", "libonnxruntime.so for an ONNX model; default: where this kedge finds it")
	return cmd
}

// promoteCommand moves a version of a model between installations.
func (c *cli) promoteCommand() *cobra.Command {
	from, to := &cli{}, &cli{}
	var alias, why string
	cmd := &cobra.Command{
		Use: "promote --from URL --to URL MODEL[@ALIAS|VERSION]", Short: "Move a model's version from one installation to another", Args: exactly(1, "promote"),
		Long: "Move a version of a model to another installation: its artefact with the golden rows, and the definitions of what\n" +
			"it is fed with. The other side replays the golden rows, refuses a definition that it has otherwise, and registers\n" +
			"the version last; done again, it changes nothing. Deploying it there is a decision of its own.\n\n" +
			"Each side has its own key: --from-key and --to-key, or KEDGE_FROM_KEY and KEDGE_TO_KEY. On the one side it takes\n" +
			"run:read, on the other rollout:write and, where definitions are missing there, definition:write.",
		Example: "  kedge promote --from http://dev:7070 --to http://prod:7070 elec@champion --alias challenger --why 'seen by the desk'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if from.server == "" || to.server == "" {
				return &usageError{errors.New("want --from and --to"), "promote"}
			}
			for side, name := range map[*cli]string{from: "KEDGE_FROM_KEY", to: "KEDGE_TO_KEY"} {
				if side.key == "" {
					side.key = os.Getenv(name)
				}
				if err := side.prepareOwn(); err != nil {
					return err
				}
			}
			return promote(cmd, from, to, args[0], alias, why)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&from.server, "from", "", "address of the installation that has the model")
	fs.StringVar(&to.server, "to", "", "address of the one that shall have it")
	fs.StringVar(&from.key, "from-key", "", "API key for --from, or file:PATH of one")
	fs.StringVar(&to.key, "to-key", "", "API key for --to, or file:PATH of one")
	fs.StringVar(&from.ca, "from-ca", "", "authority of --from's certificate, when the system does not know it")
	fs.StringVar(&to.ca, "to-ca", "", "authority of --to's certificate")
	fs.StringVar(&from.namespace, "from-in", "", "namespace there, when the key has several")
	fs.StringVar(&to.namespace, "to-in", "", "namespace there, when the key has several")
	fs.StringVar(&alias, "alias", "", "alias to move to the version over there, e.g. challenger")
	fs.StringVar(&why, "why", "", "reason, kept with the version")
	return cmd
}

func promote(cmd *cobra.Command, from, to *cli, model, alias, why string) error {
	name, _ := modelRef(model)
	bundle, err := from.bundleOf(cmd.Context(), model)
	if err != nil {
		return fmt.Errorf("promote %s: from %s: %w", model, from.server, err)
	}
	q := url.Values{"from": {from.server}, "alias": {alias}, "why": {why}}
	req, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, strings.TrimSuffix(to.server, "/")+bundlePath(name)+"?"+q.Encode(), bytes.NewReader(bundle))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	res, err := to.do(req)
	if err != nil {
		return fmt.Errorf("promote %s: to %s: %w", model, to.server, to.explain(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		var refused struct{ Code, Message string }
		if json.Unmarshal(body, &refused) != nil || refused.Code == "" {
			return fmt.Errorf("promote %s: to %s: %s", model, to.server, res.Status)
		}
		return fmt.Errorf("promote %s: to %s: %w", model, to.server, &query.Error{Status: res.StatusCode, Code: refused.Code, Message: refused.Message})
	}
	var out app.Promotion
	if err := json.Unmarshal(body, &out); err != nil {
		return fmt.Errorf("read the answer of %s: %w", to.server, err)
	}
	return printPromotion(cmd.OutOrStdout(), to.server, out)
}

func printPromotion(w io.Writer, server string, p app.Promotion) error {
	for _, d := range p.Defined {
		fmt.Fprintf(w, "defined %s\n", d)
	}
	for _, d := range p.Kept {
		fmt.Fprintf(w, "kept %s\n", d)
	}
	what := "is version %s of %s at %s already\n"
	if p.Created {
		what = "is version %s of %s at %s now\n"
	}
	_, err := fmt.Fprintf(w, "artefact %.12s "+what, p.Artifact, p.Version, p.Model, server)
	return err
}
