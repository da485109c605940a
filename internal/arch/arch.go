// Package arch holds who may import whom, as a table that its test checks
// against the code. ARCHITECTURE.md shows the same table to people.
package arch

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path that every room's import path starts with.
const Module = "github.com/kedge-ml/kedge/"

// A room is a folder at the top (or under internal) with everything below it.
// Leaves know nothing of ours.
//
// rooms maps each to the rooms that it may import beside itself. Unless a room
// is a leaf it may also use internal/telemetry, internal/web and
// internal/auth.
func rooms() map[string][]string {
	return map[string][]string{
		"event":    {},
		"query":    {},
		"dist":     {},
		"registry": {},
		"proto":    {},

		"stream":   {},
		"model":    {"dist"},
		"store":    {"event", "query", "dist"},
		"ingest":   {"event", "stream", "registry"},
		"features": {"event", "dist", "store", "stream", "registry", "query"},
		"drift":    {"event", "dist", "store", "stream", "registry", "query"},
		"trainer":  {"features", "model", "store", "registry", "internal/gpu", "query", "event", "dist"},
		"serving":  {"event", "features", "model", "stream", "registry", "internal/gpu", "query"},

		"grafana-plugin": {"query"},
		"dashboards":     {"query"},
		"alerts":         {"query", "dashboards"},

		"internal/telemetry": {},
		"internal/web":       {"query", "internal/telemetry"},
		"internal/auth":      {"registry", "internal/telemetry", "internal/web"},
		"internal/gpu":       {},
		"internal/image":     {},
		"internal/testenv":   {},
		"internal/arch":      {},
		"internal/demo":      {"event"},
		"internal/app":       {anyRoom},
		"internal/script":    {anyRoom},
		"internal/kafkatest": {"stream", "internal/testenv"},
		"internal/failpoint": {},
		"internal/shed":      {},
		"cmd":                {"internal/app", "query", "event", "internal/web", "stream", "store", "drift", "dist", "trainer"},
		"bench":              {anyRoom},
		"examples":           {anyRoom},
	}
}

const anyRoom = "*"

// leaves may not even use the shared rooms, and stay free of the outside world.
func leaves() []string { return []string{"event", "query", "dist", "registry", "proto"} }

func shared() []string {
	return []string{"internal/telemetry", "internal/web", "internal/auth", "internal/failpoint"}
}

// owners says which rooms may import a third party's module (by prefix). A
// module that is not listed is free to all but the leaves.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/segmentio/kafka-go":            {"stream", "examples"},
		"github.com/twmb/franz-go":                 {"stream", "internal/kafkatest"}, // kfake in stream/broker alone; sr asks schema registries
		"github.com/ClickHouse/":                   {"store"},
		"github.com/redis/":                        {"features"},
		"github.com/grafana/grafana-plugin-sdk-go": {"grafana-plugin", "alerts"},
		"github.com/danielgtaylor/huma":            {"internal/web", "internal/app"},
		"github.com/coreos/go-oidc":                {"internal/auth"},
		"golang.org/x/time":                        {"internal/app"},
		"github.com/spf13/cobra":                   {"cmd"},
		"github.com/NVIDIA/go-nvml":                {"internal/gpu"},
		"github.com/google/go-containerregistry":   {"internal/image"},
		"github.com/minio/minio-go":                {"model"},
		"github.com/opencontainers/image-spec":     {"internal/image"}, // its JSON schemas, in tests
		"github.com/ebitengine/purego":             {"store", "trainer", "model", "serving", "internal/gpu"},
		"gonum.org/":                               {"model", "drift", "trainer"},
		"github.com/parquet-go/":                   {"event", "features", "trainer", "drift"},
		"github.com/cockroachdb/datadriven":        {"internal/script"},
		"database/sql":                             {"store"},
		"github.com/prometheus/":                   {"internal/telemetry"},
		"go.opentelemetry.io/otel/sdk":             {"internal/telemetry"},
		"go.opentelemetry.io/otel/exporters":       {"internal/telemetry"},
	}
}

// leafParties lists what leaves may import beside the standard library.
func leafParties() map[string][]string {
	return map[string][]string{
		"event": {"github.com/google/uuid", "github.com/parquet-go/", "github.com/andybalholm/brotli", "github.com/goccy/go-yaml", "github.com/expr-lang/", "google.golang.org/protobuf", "github.com/klauspost/", "github.com/apache/arrow-go", "github.com/twmb/avro", "github.com/bufbuild/protocompile"},
	}
}

// Package is what the check needs to know of one package.
type Package struct {
	ImportPath string
	Imports    []string
}

// Violations returns one sentence per forbidden import.
func Violations(pkgs []Package) []string {
	var out []string
	for _, p := range pkgs {
		from, ok := roomOf(p.ImportPath)
		if !ok {
			out = append(out, fmt.Sprintf("%s is in no room: add it to internal/arch and ARCHITECTURE.md", p.ImportPath))
			continue
		}
		for _, imp := range p.Imports {
			if fault := check(from, p.ImportPath, imp); fault != "" {
				out = append(out, fault)
			}
		}
	}
	slices.Sort(out)
	return out
}

// roomOf finds the room of one of our packages.
func roomOf(path string) (string, bool) {
	rest, ours := strings.CutPrefix(path, Module)
	if !ours {
		return "", false
	}
	parts := strings.Split(rest, "/")
	for n := min(2, len(parts)); n >= 1; n-- {
		name := strings.Join(parts[:n], "/")
		if _, known := rooms()[name]; known {
			return name, true
		}
	}
	return "", false
}

func check(from, path, imp string) string {
	leaf := slices.Contains(leaves(), from)
	if strings.HasPrefix(imp, Module) {
		to, known := roomOf(imp)
		allowed := rooms()[from]
		switch {
		case known && (to == from || slices.Contains(allowed, to) || slices.Contains(allowed, anyRoom)):
			return ""
		case !leaf && slices.Contains(shared(), to):
			return ""
		}
		return fmt.Sprintf("%s imports %s: the room %s may not know %s", path, imp, from, to)
	}
	if fault := checkParty(from, path, imp); fault != "" {
		return fault
	}
	if leaf {
		return checkLeaf(from, path, imp)
	}
	return ""
}

func checkParty(from, path, imp string) string {
	for prefix, who := range owners() {
		if strings.HasPrefix(imp, prefix) && !slices.Contains(who, from) && !slices.Contains(rooms()[from], anyRoom) {
			return fmt.Sprintf("%s imports %s, which belongs to %s", path, imp, strings.Join(who, ", "))
		}
	}
	schemas := strings.HasPrefix(imp, "github.com/twmb/franz-go/pkg/sr")
	if strings.HasPrefix(imp, "github.com/twmb/franz-go") && !schemas && from == "stream" && !strings.HasPrefix(path, Module+"stream/broker") {
		return fmt.Sprintf("%s imports %s, which belongs to stream/broker", path, imp)
	}
	return ""
}

// checkLeaf keeps Kafka, SQL and HTTP servers out of the leaves.
func checkLeaf(from, path, imp string) string {
	if imp == "net/http" && from != "query" { // query has the client
		return fmt.Sprintf("%s imports net/http: leaves do no I/O", path)
	}
	first, _, _ := strings.Cut(imp, "/")
	if !strings.Contains(first, ".") {
		return "" // standard library
	}
	for _, prefix := range leafParties()[from] {
		if strings.HasPrefix(imp, prefix) {
			return ""
		}
	}
	return fmt.Sprintf("%s imports %s: the leaf %s keeps to the standard library", path, imp, from)
}
