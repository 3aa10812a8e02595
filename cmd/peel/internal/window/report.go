package window

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"peel/cmd/peel/internal/page"
	"peel/testnet/story"
)

// mostReport is how many stories of single nodes and circuits a report has.
const mostReport = 1000

// reported is what a report shows.
type reported struct {
	Story story.Snapshot         `json:"story"`
	Lines map[string]story.Lines `json:"lines"` // by "node NAME" and "circuit KEY"
}

// Report writes the story of a run as one HTML file that needs nothing else: the page itself, with what it would ask for in it.
func Report(w io.Writer, s *story.Story) error {
	r := reported{Story: s.Snapshot(0), Lines: map[string]story.Lines{}}
	for _, n := range r.Story.Nodes {
		if l, ok := s.OfNode(n.Name); ok && len(r.Lines) < mostReport {
			r.Lines["node "+n.Name] = l
		}
	}
	for _, c := range r.Story.Circuits {
		if l, ok := s.OfCircuit(c.Key); ok && len(r.Lines) < mostReport {
			r.Lines["circuit "+c.Key] = l
		}
	}
	text, err := json.Marshal(r) // has no < in it
	if err != nil {
		return fmt.Errorf("window: report: %w", err)
	}
	out, err := reportPage(string(text))
	if err != nil {
		return fmt.Errorf("window: report: %w", err)
	}
	_, err = io.WriteString(w, out)
	return err
}

var (
	heads   = regexp.MustCompile(`(?m)^<(link|script) .*\n`)
	imports = regexp.MustCompile(`(?m)^import .*\n`)
	exports = regexp.MustCompile(`(?m)^export (class|function|async function|const) `)
)

// reportPage puts styles, scripts and what they show into the page. Only these scripts and styles run in it, by their hashes.
func reportPage(data string) (string, error) {
	own, shared := assets(), page.Shared()
	var failed error
	read := func(from fs.FS, names ...string) string {
		var all strings.Builder
		for _, name := range names {
			text, err := fs.ReadFile(from, name)
			if err != nil {
				failed = err
			}
			all.Write(text)
			all.WriteByte('\n')
		}
		return all.String()
	}
	styles := read(shared, "base.css", "uplot/uPlot.min.css") + read(own, "window.css")
	plots := read(shared, "uplot/uPlot.iife.min.js")
	module := read(shared, "peel.js") + read(own, "graph.js", "charts.js", "window.js")
	module = exports.ReplaceAllString(imports.ReplaceAllString(module, ""), "$1 ")
	index := read(own, "index.html")
	if failed != nil {
		return "", failed
	}
	for what, text := range map[string]string{"styles": styles, "plots": plots, "module": module} {
		if strings.Contains(text, "</s") {
			return "", fmt.Errorf("the %s would end early", what)
		}
	}
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	policy := fmt.Sprintf("default-src 'none'; style-src %s; script-src %s %s; base-uri 'none'; form-action 'none'", hash(styles), hash(plots), hash(module))
	head := "<meta http-equiv=\"Content-Security-Policy\" content=\"" + html.EscapeString(policy) + "\">\n<style>" + styles + "</style>\n"
	foot := "<script id=\"report\" type=\"application/json\">" + data + "</script>\n<script>" + plots + "</script>\n<script type=\"module\">" + module + "</script>\n"
	index = heads.ReplaceAllLiteralString(index, "")
	index = strings.Replace(index, "</head>", head+"</head>", 1)
	return strings.Replace(index, "</body>", foot+"</body>", 1), nil
}
