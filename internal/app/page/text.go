package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// short writes a number in at most five characters or so: 0.034, 12.3, 4.1k.
func short(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v):
		return "–"
	case math.IsInf(v, 0):
		return fmt.Sprint(v)
	case abs >= 1e15:
		return strconv.FormatFloat(v, 'e', 1, 64)
	case abs >= 9.995e11:
		return trim(v/1e12, "T")
	case abs >= 9.995e8:
		return trim(v/1e9, "G")
	case abs >= 9.995e5:
		return trim(v/1e6, "M")
	case abs >= 9995:
		return trim(v/1e3, "k")
	case abs >= 99.95 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 9.995:
		return trimZeros(strconv.FormatFloat(v, 'f', 1, 64))
	case abs >= 0.9995:
		return trimZeros(strconv.FormatFloat(v, 'f', 2, 64))
	case abs >= 0.001:
		return trimZeros(strconv.FormatFloat(v, 'f', 3, 64))
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func trim(v float64, unit string) string {
	digits := 2
	if math.Abs(v) >= 99.95 {
		digits = 0
	} else if math.Abs(v) >= 9.995 {
		digits = 1
	}
	return trimZeros(strconv.FormatFloat(v, 'f', digits, 64)) + unit
}

func trimZeros(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// bytesText writes a size: 1.4 GB.
func bytesText(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1 << 40, "TB"}, {1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "kB"}} {
		if math.Abs(v) >= u.size {
			return short(v/u.size) + " " + u.name
		}
	}
	return short(v) + " B"
}

// age writes seconds as people say them: 0.3 s, 4 min, 2 h, 3 d.
func age(seconds float64) string {
	switch {
	case math.IsNaN(seconds):
		return "–"
	case seconds < 0:
		return "now"
	case seconds < 10:
		return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
	case seconds < 100:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 6000:
		return fmt.Sprintf("%.0f min", seconds/60)
	case seconds < 172800:
		return fmt.Sprintf("%.0f h", seconds/3600)
	}
	return fmt.Sprintf("%.0f d", seconds/86400)
}

func since(d time.Duration) string { return age(d.Seconds()) }

// days writes how long the disk lasts.
func days(v float64) string {
	switch {
	case v > 3650:
		return "more than 10 years"
	case v > 700:
		return fmt.Sprintf("%.0f years", v/365)
	case v >= 10:
		return fmt.Sprintf("%.0f days", v)
	case v >= 1:
		return fmt.Sprintf("%.1f days", v)
	}
	return age(v * 86400)
}

func percent(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v > 0 && v < 0.001:
		return "<0.1 %"
	case v < 0.1 && v > 0:
		return trimZeros(strconv.FormatFloat(v*100, 'f', 1, 64)) + " %"
	}
	return strconv.FormatFloat(v*100, 'f', 0, 64) + " %"
}

// last is the newest value of a series, NaN if there is none.
func last(s Series) float64 {
	for i := len(s.Values) - 1; i >= 0; i-- {
		if !math.IsNaN(s.Values[i]) {
			return s.Values[i]
		}
	}
	return math.NaN()
}

// mean of the values that there are.
func mean(s Series) float64 {
	sum, n := 0.0, 0.0
	for _, v := range s.Values {
		if !math.IsNaN(v) {
			sum, n = sum+v, n+1
		}
	}
	return sum / n
}
