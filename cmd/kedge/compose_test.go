package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// composeFile is what the test reads of compose.yaml.
type composeFile struct {
	Services map[string]struct {
		Image       string            `json:"image"`
		User        string            `json:"user"`
		ReadOnly    bool              `json:"read_only"`
		CapDrop     []string          `json:"cap_drop"`
		SecurityOpt []string          `json:"security_opt"`
		Profiles    []string          `json:"profiles"`
		Environment map[string]string `json:"environment"`
		Ports       []string          `json:"ports"`
		Healthcheck map[string]any    `json:"healthcheck"`
		DependsOn   map[string]struct {
			Condition string `json:"condition"`
		} `json:"depends_on"`
		Deploy struct {
			Resources struct {
				Limits map[string]string `json:"limits"`
			} `json:"resources"`
		} `json:"deploy"`
	} `json:"services"`
}

func readYAML(t *testing.T, into any, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{testenv.Root(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		var all map[string]any // into is less than there is
		if err := event.DecodeYAML(b, &all); err != nil {
			t.Fatalf("%v: %v", path, err)
		}
		text, err := json.Marshal(all)
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatalf("%v: %v", path, err)
		}
	}
	return string(b)
}

// TestCompose holds what every service of the stack promises: a pinned image,
// no root, limits, ports on loopback alone, no secret in the environment, and
// that nobody waits for what is in another profile.
func TestCompose(t *testing.T) {
	var c composeFile
	readYAML(t, &c, "compose", "compose.yaml")
	if len(c.Services) < 10 {
		t.Fatalf("%d services", len(c.Services))
	}
	ports := map[string]string{} // of a profile → the service that has it
	pinned := regexp.MustCompile(`:(v?\d+\.\d+(\.\d+)?|\$\{KEDGE_VERSION:-dev\})$`)
	for name, s := range c.Services {
		switch {
		case !pinned.MatchString(s.Image):
			t.Errorf("%s: image %s is not pinned", name, s.Image)
		case s.User == "" || strings.HasPrefix(s.User, "0:") || s.User == "root":
			t.Errorf("%s runs as %q", name, s.User)
		case !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || !s.ReadOnly && name != "kafka":
			t.Errorf("%s is not hardened", name)
		case s.Deploy.Resources.Limits["memory"] == "" || s.Deploy.Resources.Limits["cpus"] == "":
			t.Errorf("%s has no limits", name)
		case s.Healthcheck["test"] == nil && name != "collector" && name != "traces": // their images hold nothing to check with
			t.Errorf("%s has no health check", name)
		}
		for _, p := range s.Ports {
			host := strings.Join(strings.Split(p, ":")[:2], ":")
			for _, profile := range s.Profiles {
				if other, taken := ports[profile+host]; taken {
					t.Errorf("%s and %s both want %s in profile %s", name, other, host, profile)
				}
				ports[profile+host] = name
			}
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s is open to the world: %s", name, p)
			}
		}
		for k, v := range s.Environment {
			if strings.Contains(k, "PASSWORD") && !strings.HasPrefix(v, "/run/secrets/") {
				t.Errorf("%s: %s is not a file", name, k)
			}
		}
		for other, d := range s.DependsOn {
			o, ok := c.Services[other]
			if !ok || !slices.Contains(o.Profiles, s.Profiles[0]) || o.Healthcheck["test"] != nil && d.Condition != "service_healthy" {
				t.Errorf("%s waits for %s: %+v", name, other, d)
			}
		}
	}
	// A trace's link leads where the profile has something: in "demo" to Kedge's own view.
	for folder, want := range map[string]struct {
		sources int
		traces  string
	}{"datasources": {1, ""}, "full": {3, `/explore?left={"datasource":"traces"`}} {
		var sources struct {
			Datasources []struct {
				UID, Type string
				JSONData  struct{ TraceURL string } `json:"jsonData"`
			} `json:"datasources"`
		}
		readYAML(t, &sources, "compose", "grafana", "provisioning", folder, "kedge.yaml")
		if s := sources.Datasources; s[0].UID != alerts.SourceUID || s[0].Type != "kedgeml-kedge-datasource" || len(s) != want.sources || !strings.HasPrefix(s[0].JSONData.TraceURL, want.traces) || (want.traces == "") != (s[0].JSONData.TraceURL == "") {
			t.Errorf("%s: %+v", folder, s)
		}
	}
}

// TestComposeNatively starts the processes of the profile "full" from their own
// configuration files, without containers: a real Kafka, and Kedge by roles.
// There is no ClickHouse server here, so the embedded engine stands for it.
func TestComposeNatively(t *testing.T) {
	kafka := kafkatest.Start(t, 1)
	start := func(name string) *kedgeProcess {
		text := strings.NewReplacer(`["kafka:9092"]`, fmt.Sprintf("[%q]", kafka.Addr()), "/data", t.TempDir(), "0.0.0.0", "127.0.0.1", ":7070", ":0", ":7071", ":0",
			`url: "file:/run/secrets/clickhouse_url"`, fmt.Sprintf("library: %q", testenv.LibCHDB(t)), "http://collector:4318", "").Replace(readYAML(t, nil, "compose", "kedge", name))
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return launchKedge(t, "run", "--config", file)
	}
	core, serving := start("core.yaml"), start("serving.yaml")
	core.send(fmt.Sprintf(`{"view":"drivers","key":{"driver_id":7},"event_time":%q,"values":{"trips":3}}`, time.Now().UTC().Format(time.RFC3339)))
	testenv.Eventually(t, 60*time.Second, func() error {
		if n := landed(core, "features", "drivers"); n != 1 {
			return fmt.Errorf("%d rows have landed", n)
		}
		if _, body := post(t, serving.http+"/get-online-features", `{"features":["drivers:trips"],"entities":{"driver_id":[7]}}`); !strings.Contains(body, `"values":[3]`) {
			return fmt.Errorf("online: %s", body)
		}
		return nil
	})
	p := startPlugin(t, core.http, `{}`, nil)
	if status, text := p.checkHealth(); status != 1 {
		t.Errorf("the data source of %s: %s", core.http, text)
	}
	if status, text := startPlugin(t, serving.http, `{}`, nil).checkHealth(); status == 1 || !strings.Contains(text, "role query") {
		t.Errorf("a process without a store: %v %s", status, text)
	}
	for _, file := range []string{"demo.yaml", "trainer.yaml", "serving.yaml"} {
		if out, errs, status := runKedge(t, "check", filepath.Join(testenv.Root(t), "compose", "kedge", file)); status != 0 {
			t.Errorf("%s: %s%s", file, out, errs)
		}
	}
}
