package page

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"strings"
	"unicode/utf8"
)

//go:embed assets
var assets embed.FS

// Page is the parsed template. It is safe for concurrent use.
type Page struct {
	tmpl *template.Template
}

// New parses the template.
func New() (*Page, error) {
	t, err := template.New("page.html").Funcs(funcs()).ParseFS(assets, "assets/page.html")
	if err != nil {
		return nil, fmt.Errorf("page template: %w", err)
	}
	return &Page{tmpl: t}, nil
}

// Render writes the page whole, or fails before anything is written.
func (p *Page) Render(d *Data) ([]byte, error) {
	var b bytes.Buffer
	if err := p.tmpl.Execute(&b, d); err != nil {
		return nil, fmt.Errorf("render page: %w", err)
	}
	return b.Bytes(), nil
}

// Assets serves the style sheet, the script and the icon under /assets/.
func Assets() http.Handler {
	sub, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	files := http.FileServerFS(sub)
	return http.StripPrefix("/assets/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !utf8.ValidString(r.URL.Path) { // no file's name, and the file server would call it a fault of its own
			http.NotFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}))
}

// columnOn is a column and the page around it, for a template that needs both.
type columnOn struct {
	Column Column
	Page   *Data
}

func funcs() template.FuncMap {
	return template.FuncMap{
		"area": area, "band": band, "heat": heat,
		"two": func(a, b *Series) template.HTML {
			return lines("", []string{"line", "line2"}, *a, *b)
		},
		"short": short, "age": func(v *float64) string { return age(*v) }, "since": since, "ago": age,
		"bytes": bytesText, "percent": percent, "days": func(v *float64) string { return days(*v) },
		"clock": clock, "join": strings.Join, "title": title, "worst": worst,
		"last": last, "mean": mean, "meter": meter,
		"float": func(v uint64) float64 { return float64(v) },
		"int":   func(v int64) float64 { return float64(v) },
		"pair":  func(c Column, d *Data) columnOn { return columnOn{c, d} },
	}
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// worst is the severity of the gravest problem.
func worst(ps []Problem) string {
	w := ""
	for _, p := range ps {
		if p.Severity == "critical" {
			return p.Severity
		}
		w = p.Severity
	}
	return w
}

// meter is the used share in percent, visible even when it is tiny.
func meter(used, free uint64) float64 {
	return math.Max(0.6, 100*float64(used)/math.Max(1, float64(used+free)))
}
