// Package bucket keeps folders of small files in S3-compatible storage, each
// under its content's digest: objects PREFIX/DIGEST/NAME, the file that lists
// the others last. A digest without that file is nothing yet.
//
// Promises: what [Bucket.Put] returned without an error for is there whole, and
// a put that broke off can be done again. Checking what [Bucket.Get] returns is
// the caller's, who knows what the digest is of. May not: change or remove what
// is there.
package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// ErrAway says that the storage did not answer, or refused.
var ErrAway = errors.New("artefact storage")

// Config names a bucket and who asks.
type Config struct {
	Endpoint  string // URL of the service, e.g. https://s3.eu-central-1.amazonaws.com
	Bucket    string
	Prefix    string // of all objects
	Region    string
	AccessKey string // empty: AWS_ACCESS_KEY_ID and its like of the environment
	SecretKey string
	List      string        // the file of a folder that lists the others
	Timeout   time.Duration // of one object; 0: a minute
}

// Bucket is an open bucket.
type Bucket struct {
	c   *minio.Client
	cfg Config
}

// retries of one request; an answer that comes late is better than none, but
// somebody waits.
const retries = 3

// Open prepares a bucket. It asks nobody yet.
func Open(cfg Config) (*Bucket, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("artefact storage: endpoint %q: want an address such as https://s3.example.com", cfg.Endpoint)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	creds := credentials.NewEnvAWS()
	if cfg.AccessKey != "" {
		creds = credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, "")
	}
	c, err := minio.New(u.Host, &minio.Options{Creds: creds, Secure: u.Scheme == "https", Region: cfg.Region, MaxRetries: retries})
	if err != nil {
		return nil, fmt.Errorf("artefact storage %s: %w", cfg.Endpoint, err)
	}
	return &Bucket{c, cfg}, nil
}

func (b *Bucket) object(digest, name string) string {
	return path.Join(b.cfg.Prefix, digest, name)
}

// fault says which object could not be had, and where.
func (b *Bucket) fault(op, digest, name string, err error) error {
	what := fmt.Sprintf("%s %s in bucket %s at %s", op, b.object(digest, name), b.cfg.Bucket, b.cfg.Endpoint)
	if code := minio.ToErrorResponse(err); code.StatusCode == http.StatusNotFound && code.Code != minio.NoSuchBucket {
		return fmt.Errorf("%w: %s: %w", ErrAway, what, fs.ErrNotExist)
	}
	return fmt.Errorf("%w: %s: %w", ErrAway, what, err)
}

// Put writes a folder's files, the one that lists the others last. One that is
// there whole is left as it is.
func (b *Bucket) Put(ctx context.Context, digest string, files map[string][]byte) error {
	if there, err := b.get(ctx, digest, b.cfg.List, 1<<16); err == nil && bytes.Equal(there, files[b.cfg.List]) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(n string) bool { return n == b.cfg.List })
	for _, name := range append(names, b.cfg.List) {
		if err := b.put(ctx, digest, name, files[name]); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bucket) put(ctx context.Context, digest, name string, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	// The sum lets the service refuse what was damaged on its way.
	opts := minio.PutObjectOptions{ContentType: "application/octet-stream", SendContentMd5: true, DisableMultipart: true}
	if _, err := b.c.PutObject(ctx, b.cfg.Bucket, b.object(digest, name), bytes.NewReader(content), int64(len(content)), opts); err != nil {
		return b.fault("write", digest, name, err)
	}
	return nil
}

// Get reads the file that lists the others, and those of them that names
// answers for it; no file may be larger than limit bytes. A digest that is not there whole wraps
// [fs.ErrNotExist].
func (b *Bucket) Get(ctx context.Context, digest string, names func(list []byte) ([]string, error), limit int64) (map[string][]byte, error) {
	list, err := b.get(ctx, digest, b.cfg.List, 1<<16)
	if err != nil {
		return nil, err
	}
	wanted, err := names(list)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{b.cfg.List: list}
	for _, name := range wanted {
		if out[name], err = b.get(ctx, digest, name, limit); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (b *Bucket) get(ctx context.Context, digest, name string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	o, err := b.c.GetObject(ctx, b.cfg.Bucket, b.object(digest, name), minio.GetObjectOptions{})
	if err != nil {
		return nil, b.fault("read", digest, name, err)
	}
	defer o.Close()
	content, err := io.ReadAll(io.LimitReader(o, limit+1))
	if err != nil {
		return nil, b.fault("read", digest, name, err)
	}
	if int64(len(content)) > limit {
		return nil, b.fault("read", digest, name, fmt.Errorf("more than %d bytes", limit))
	}
	return content, nil
}
