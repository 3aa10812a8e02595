package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

const (
	alertRules = "../../packaging/prometheus/peel.yml"
	alertTests = "../../packaging/prometheus/test.yml"
	dashboard  = "../../packaging/grafana/peel.json"
)

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// ruleExprs are the expressions of the alerts, by name.
func ruleExprs(t *testing.T) map[string]string {
	var f struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	readYAML(t, alertRules, &f)
	all := map[string]string{}
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r.Expr
		}
	}
	if len(all) < 10 {
		t.Fatalf("%d alerts in %s: is this all?", len(all), alertRules)
	}
	return all
}

// panelExprs are the queries of the dashboard, by panel, with its variables filled in.
func panelExprs(t *testing.T) map[string]string {
	var f struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile(dashboard)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range f.Panels {
		for i, q := range p.Targets {
			all[p.Title+strings.Repeat("'", i)] = strings.NewReplacer("$node", ".*", "$__rate_interval", "5m").Replace(q.Expr)
		}
	}
	if len(all) < 10 {
		t.Fatalf("%d queries in %s: is this all?", len(all), dashboard)
	}
	return all
}

// Each alert has a test in which it is told of an instance that is bad, and not of another, which promtool runs (.ci/run).
func TestEveryAlertHasATestOfWhatItTells(t *testing.T) {
	type check struct {
		Expr    string
		Samples []any  `yaml:"exp_samples"`
		Name    string `yaml:"alertname"`
		Alerts  []any  `yaml:"exp_alerts"`
	}
	var f struct {
		Tests []struct {
			Name   string
			Input  []struct{ Series string } `yaml:"input_series"`
			Exprs  []check                   `yaml:"promql_expr_test"`
			Alerts []check                   `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, alertTests, &f)
	tested := map[string]bool{}
	for _, test := range f.Tests {
		name, _, _ := strings.Cut(test.Name, ",")
		bad, well, told := false, false, false
		for _, s := range test.Input {
			is := strings.Contains(s.Series, `instance="bad`)
			bad, well = bad || is, well || !is
		}
		for _, c := range append(test.Exprs, test.Alerts...) {
			if c.Name != name && !strings.Contains(c.Expr, `alertname="`+name+`"`) {
				t.Errorf("the test of %s is of another alert: %s%s", name, c.Name, c.Expr)
			}
			told = told || len(c.Alerts) > 0 || len(c.Samples) > 0
		}
		tested[name] = bad && well && told
	}
	for name := range ruleExprs(t) {
		if !tested[name] {
			t.Errorf("%s has no test in which it is told of an instance that is bad, and not of one that is well", name)
		}
		delete(tested, name)
	}
	for name := range tested {
		t.Errorf("there is no alert %s, but a test of it", name)
	}
}

// inQuery is a metric with what a query wants of its labels.
var (
	inQuery  = regexp.MustCompile(`\b(peel_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	oneLabel = regexp.MustCompile(`([a-z_]+)(=~|=)"([^"]*)"`)
)

// answered says what is amiss with a query: a metric, label or value of it that none of the nodes shows. Those that are empty may have
// nothing to show yet.
func answered(query string, shown []*dto.MetricFamily, empty map[string]bool) (amiss []string) {
	for _, m := range inQuery.FindAllStringSubmatch(query, -1) {
		name, histogram := m[1], false
		if cut, ok := strings.CutSuffix(name, "_bucket"); ok {
			name, histogram = cut, true
		} else if cut, ok := strings.CutSuffix(name, "_count"); ok {
			name = cut
		}
		i := slices.IndexFunc(shown, func(f *dto.MetricFamily) bool { return f.GetName() == name })
		if i < 0 && empty[name] {
			continue
		}
		if i < 0 {
			amiss = append(amiss, "no node shows "+name)
			continue
		}
		for _, l := range oneLabel.FindAllStringSubmatch(m[2], -1) {
			label, how, want := l[1], l[2], l[3]
			if label == "instance" || label == "job" {
				continue
			}
			fits := func(v string) bool { return v == want }
			if how == "=~" {
				fits = regexp.MustCompile(`^(?:` + want + `)$`).MatchString
			}
			found := false
			for _, one := range shown[i].Metric {
				for _, has := range one.Label {
					found = found || has.GetName() == label && fits(has.GetValue())
				}
				for _, b := range one.GetHistogram().GetBucket() {
					text := strings.TrimSpace(strings.Trim(jsonOf(b.GetUpperBound()), `"`))
					found = found || histogram && label == "le" && (fits(text) || fits(text+".0"))
				}
			}
			if !found {
				amiss = append(amiss, name+" is never shown with "+l[0])
			}
		}
	}
	return amiss
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// textOf is what GET /metrics says.
func textOf(t *testing.T, from prometheus.Gatherer) []byte {
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return []byte(b.String())
}

// queriesAreAnswered holds all queries against what nodes show. Where none is empty, promtool looks at that too, if it is here.
func queriesAreAnswered(t *testing.T, texts map[string][]byte, empty map[string]bool) {
	t.Helper()
	var shown []*dto.MetricFamily
	promtool, missing := "", errors.New("not needed")
	if empty == nil {
		if promtool, missing = exec.LookPath("promtool"); missing != nil {
			t.Log("notice: promtool is not installed: it looks at no metrics here")
		}
	}
	for kind, text := range texts {
		p := expfmt.NewTextParser(model.UTF8Validation)
		families, err := p.TextToMetricFamilies(strings.NewReader(string(text)))
		if err != nil {
			t.Fatalf("%s: %v\n%s", kind, err, text)
		}
		for _, f := range families {
			shown = append(shown, f)
		}
		if missing == nil {
			c := exec.CommandContext(t.Context(), promtool, "check", "metrics")
			c.Stdin = strings.NewReader(string(text))
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%s: promtool check metrics: %v\n%s", kind, err, out)
			}
		}
	}
	for _, queries := range []map[string]string{ruleExprs(t), panelExprs(t)} {
		for what, q := range queries {
			for _, amiss := range answered(q, shown, empty) {
				t.Errorf("%s: %s", what, amiss)
			}
		}
	}
	for _, wrong := range []string{`peel_nonsense`, `peel_relay_exits_total{result="won"}`, `peel_relay_handshake_wait_seconds_bucket{le="2"}`, `peel_relay_open{king="circuits"}`} {
		if len(answered(wrong, shown, empty)) != 1 {
			t.Errorf("%s should be answered by none", wrong)
		}
	}
}

// Every query of the dashboard and of the alerts is about metrics, labels and values that nodes show, and is one that Prometheus can read.
func TestQueriesAreAnswered(t *testing.T) {
	texts := map[string][]byte{}
	for kind, s := range windows(t) {
		texts[kind] = textOf(t, s.Gatherer())
	}
	queriesAreAnswered(t, texts, metricNames(t))
}

// Where promtool is installed, it reads the alerts and the queries of the dashboard too.
func TestPromtoolTakesTheQueries(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("notice: promtool (package prometheus) is not installed: the queries are not checked by it")
	}
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, q := range panelExprs(t) {
		rules = append(rules, rule{"panel", q})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	panels := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(panels, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", "--lint=none", alertRules, panels).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
