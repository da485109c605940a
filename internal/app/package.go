package app

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kedge-ml/kedge/internal/image"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving/ort"
)

// Package is what a container build folder is made of.
type Package struct {
	Bundle []byte // as the server's bundle route answers
	Binary string // kedge for Linux
	ONNX   string // libonnxruntime.so, for ONNX models; empty: where this binary finds it
	Dir    string // to be made
}

// Packaged says what was made.
type Packaged struct {
	Model, Version, Artifact, Digest string
}

// Paths within the image.
const (
	imageBinary = "/kedge/kedge"
	imageConfig = "/kedge/kedge.yaml"
	imageModel  = "/kedge/model"
	imageONNX   = "/kedge/libonnxruntime.so"
	imageData   = "/data"
	imagePort   = 7070
)

// Write makes the folder, whole or not at all.
func (p *Package) Write() (out Packaged, err error) {
	b, err := decodeBundle(bytes.NewReader(p.Bundle), model.DefaultLimits())
	if err != nil {
		return out, err
	}
	if _, err := os.Lstat(p.Dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return out, fmt.Errorf("%s is there already: name a folder that is not, or remove it", p.Dir)
	}
	spec, err := p.image(b)
	if err != nil {
		return out, err
	}
	parent := filepath.Dir(filepath.Clean(p.Dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return out, err
	}
	temp, err := os.MkdirTemp(parent, ".packaging-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(temp) // gone already when all went well
	if err := os.Chmod(temp, 0o755); err != nil {
		return out, err
	}
	out = Packaged{Model: b.Model, Version: b.Version.Version, Artifact: b.Version.Artifact}
	if out.Digest, err = image.Write(temp, spec); err != nil {
		return out, err
	}
	return out, os.Rename(temp, p.Dir)
}

// image is the content: the binary and its libraries below, the model above.
func (p *Package) image(b *Bundle) (image.Spec, error) {
	created := b.Version.Created.UTC().Truncate(time.Second)
	s := image.Spec{
		Programs: []image.File{{Path: imageBinary, Source: p.Binary, Mode: 0o755}},
		Files:    []image.File{{Path: imageConfig, Content: packagedConfig(b), Mode: 0o644}},
		Volume:   imageData, Entrypoint: []string{imageBinary, "run", "--config", imageConfig}, Port: imagePort, Created: created,
		Name: b.Model + "-" + b.Version.Version,
		Labels: map[string]string{"org.opencontainers.image.title": b.Model, "org.opencontainers.image.version": b.Version.Version,
			"io.kedge.artifact": b.Version.Artifact, "io.kedge.run": b.Version.Run},
	}
	names, content, err := b.entries()
	if err != nil {
		return s, err
	}
	for _, name := range names {
		s.Files = append(s.Files, image.File{Path: imageModel + "/" + name, Content: content[name], Mode: 0o644})
	}
	if b.artifact.Signature.Kind != model.ONNX {
		return s, nil
	}
	library := p.ONNX
	if library == "" {
		cfg, err := onnxConfig()
		if err != nil {
			return s, fmt.Errorf("the model needs ONNX Runtime in its image: %w, or --onnxruntime", err)
		}
		library = cfg.Library
	}
	s.Programs = append(s.Programs, image.File{Path: imageONNX, Source: library, Mode: 0o755})
	s.Env = append(s.Env, ort.Environment+"="+imageONNX)
	return s, nil
}

// packagedConfig serves the model alone. The online tables come with it where
// inputs are features, which can be pushed to it or read from outside brokers.
func packagedConfig(b *Bundle) []byte {
	roles := "[serving]"
	for i := range b.artifact.Signature.Inputs {
		if b.artifact.Signature.Inputs[i].View != "" {
			roles = "[features, serving]"
		}
	}
	return fmt.Appendf(nil, `# Serves version %s of %s alone. Any member can be set by its KEDGE_… variable:
# with KEDGE_KAFKA_BROKERS, predictions are recorded there instead of in the container.
data_dir: %s
roles: %s
serving: {bundle: %s}
http: {listen: "0.0.0.0:%d"}
# The container's network is the guard. To have Kedge ask for keys instead:
# KEDGE_AUTH_INSECURE=false, KEDGE_AUTH_ENABLED=true and a certificate in http.tls.
auth: {insecure: true}
telemetry: {log_format: json}
`, b.Version.Version, b.Model, imageData, roles, imageModel, imagePort)
}
