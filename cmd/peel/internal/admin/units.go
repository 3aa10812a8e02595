package admin

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// How the names of numbers in a status end that are bytes: page/parts.js knows them too, and page/format.js writes them in the same way.
const (
	rateName = "_bytes_a_second"
	sizeName = "_bytes"
	bulkName = "_MB"
)

// Bytes is what the member "unit" of an object in a list says where its numbers are bytes, whatever their names (page/parts.js knows it too).
const Bytes = "bytes"

const unitName = "unit"

// inUnits is the title of a value, for people, and the value: a number of bytes, which its name tells, as a text in units.
func inUnits(name string, v any) (title string, shown any) {
	for _, u := range []struct {
		end   string
		write func(float64) string
	}{{rateName, Rate}, {sizeName, Size}, {bulkName, func(n float64) string { return scaled(n*1e6, 1000, decimal) }}} {
		if before, ok := strings.CutSuffix(name, u.end); ok {
			name = before
			if number, ok := v.(json.Number); ok {
				if n, err := number.Float64(); err == nil {
					v = u.write(n)
				}
			}
			break
		}
	}
	return strings.ReplaceAll(Printable(name), "_", " "), v
}

var (
	decimal = []string{"B", "kB", "MB", "GB", "TB"}
	binary  = []string{"B", "KiB", "MiB", "GiB", "TiB"}
)

// Size is so many bytes of memory, for people.
func Size(n float64) string { return scaled(n, 1024, binary) }

// Rate is so many bytes a second, for people, and as bits, as some give it in a configuration.
func Rate(n float64) string {
	if n == 0 {
		return "0 B/s"
	}
	return scaled(n, 1000, decimal) + "/s (" + scaled(8*n, 1000, []string{"bit", "kbit", "Mbit", "Gbit", "Tbit"}) + "/s)"
}

// scaled is a number in the largest unit of which it is one at least, with three digits or so.
func scaled(n, step float64, units []string) string {
	i := 0
	for n >= step && i < len(units)-1 {
		n /= step
		i++
	}
	most := 2
	if n >= 100 {
		most = 0
	} else if n >= 10 {
		most = 1
	}
	text := strconv.FormatFloat(n, 'f', most, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return fmt.Sprintf("%s %s", text, units[i])
}
