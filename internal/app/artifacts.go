package app

import (
	"context"
	"time"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/bucket"
)

// ArtifactsConfig says where artefacts of models are kept beside the data
// directory, which then holds what this machine has used of them.
type ArtifactsConfig struct {
	S3 S3Config `yaml:"s3"`
}

// S3Config is S3-compatible storage.
type S3Config struct {
	Endpoint  string `yaml:"endpoint"` // e.g. https://s3.eu-central-1.amazonaws.com
	Bucket    string `yaml:"bucket"`   // empty: artefacts are kept in the data directory alone
	Prefix    string `yaml:"prefix"`
	Region    string `yaml:"region"`
	AccessKey string `yaml:"access_key"` // empty: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
	SecretKey Secret `yaml:"secret_key"`
}

func (c *Config) checkArtifacts(f *faults) {
	s := c.Artifacts.S3
	f.check((s.Bucket == "") == (s.Endpoint == ""), "artifacts.s3: want both an endpoint and a bucket, or neither")
	f.check((s.AccessKey == "") == (s.SecretKey == ""), "artifacts.s3: want both access_key and secret_key, or neither")
	if s.Bucket == "" {
		return
	}
	if _, err := bucket.Open(s.bucket()); err != nil {
		f.check(false, "artifacts.s3: %w", err)
	}
}

func (s *S3Config) bucket() bucket.Config {
	return bucket.Config{Endpoint: s.Endpoint, Bucket: s.Bucket, Prefix: s.Prefix, Region: s.Region, AccessKey: s.AccessKey, SecretKey: string(s.SecretKey), List: model.ManifestFile}
}

// library opens the artefacts, once.
func (a *App) library() (*model.Library, error) {
	if a.artifacts != nil {
		return a.artifacts, nil
	}
	root, err := a.folder(artifactsDir)
	if err != nil {
		return nil, err
	}
	var b *bucket.Bucket
	if a.cfg.Artifacts.S3.Bucket != "" {
		if b, err = bucket.Open(a.cfg.Artifacts.S3.bucket()); err != nil {
			return nil, err
		}
	}
	a.artifacts = model.NewLibrary(root, b)
	return a.artifacts, nil
}

// pushPause is how long the storage is left alone after it failed.
const pushPause = time.Minute

// pushArtifacts brings artefacts that were made before there was a bucket, or
// by hand, into it, and waits for the end.
func (a *App) pushArtifacts(ctx context.Context) error {
	log := a.tel.Scope("artefacts").Log
	for {
		n, err := a.artifacts.Push(ctx)
		if err == nil {
			log.InfoContext(ctx, "artefacts are in the bucket", "artefacts", n)
			<-ctx.Done()
			return nil
		}
		log.WarnContext(ctx, "artefacts are not in the bucket yet; what is in the data directory is served meanwhile", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pushPause):
		}
	}
}
