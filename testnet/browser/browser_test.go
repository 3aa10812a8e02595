package browser

import (
	"fmt"
	"image/color"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

const colours = `<!doctype html><meta name="viewport" content="width=device-width"><title>t</title>
<style>body { margin: 0; background: #00aa00; height: 2000px } @media (prefers-color-scheme: dark) { body { background: #0000aa } }</style>
<button>b</button><script>%s; window.ready = true; document.querySelector("button").onclick = () => window.pressed = true</script>`

// What a test relies on: the page is seen as it was asked for, light or dark, wide or narrow, and no complaint is lost.
func TestInABrowserAPageIsSeenAsAskedFor(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		script := map[string]string{"/": "1", "/throws": "setTimeout(() => { throw Error('canary1') })", "/says": "console.error('canary2')",
			"/loads": "fetch('/missing')", "/reject": "Promise.reject(Error('canary3'))"}[r.URL.Path]
		if script == "" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, colours, script)
	}))
	defer web.Close()
	b := Start(t)
	p := b.Open(t, web.URL+"/", View{Width: 390, Height: 600})
	p.Until(t.Context(), "window.ready")
	var width int
	if err := p.Eval("innerWidth", &width); err != nil || width != 390 {
		t.Errorf("%d wide: %v", width, err)
	}
	if _, img := p.Draw(); img.Bounds().Dx() != 390 || img.Bounds().Dy() < 2000 || color.RGBAModel.Convert(img.At(300, 1900)) != (color.RGBA{0, 0xaa, 0, 0xff}) {
		t.Errorf("drawn: %v, %v", img.Bounds(), img.At(300, 1900))
	}
	p.Look(View{Width: 800, Height: 600, Dark: true})
	p.Until(t.Context(), "innerWidth === 800")
	if _, img := p.Draw(); color.RGBAModel.Convert(img.At(300, 1900)) != (color.RGBA{0, 0, 0xaa, 0xff}) {
		t.Errorf("drawn dark: %v", img.At(300, 1900))
	}
	p.Press("Tab")
	p.Press("Enter")
	p.Until(t.Context(), "window.pressed")
	if c := p.Complaints(); len(c) > 1 || len(c) == 1 && !strings.Contains(c[0], "favicon") {
		t.Errorf("a good page complains: %q", c)
	}
	if err := p.Eval("nothing.here", nil); err == nil {
		t.Error("a script that fails is no error")
	}
	for path, want := range map[string]string{"/throws": "canary1", "/says": "canary2", "/loads": "404", "/reject": "canary3"} {
		p := b.Open(t, web.URL+path, View{Width: 390, Height: 600})
		p.Until(t.Context(), "window.ready")
		heard := func() bool { return strings.Contains(strings.Join(p.Complaints(), "\n"), want) }
		for range 200 { // each takes a turn of the browser
			if heard() {
				break
			}
			p.Eval("new Promise((done) => setTimeout(done, 50))", nil)
		}
		if !heard() {
			t.Errorf("%s: %q", path, p.Complaints())
		}
	}
}
