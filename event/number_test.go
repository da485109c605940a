package event

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// parseAll reads a number in all the ways the decoder has.
func parseAll(text string) (fast float64, isFast bool, n number, ok bool) {
	s := &scanner{}
	s.start([]byte(text))
	fast, isFast = s.fastFloat()
	isFast = isFast && s.pos == len(text)
	s.start([]byte(text))
	n, ok = s.number()
	return fast, isFast, n, ok && s.pos == len(text)
}

func checkNumber(t *testing.T, text string) {
	t.Helper()
	fast, isFast, n, ok := parseAll(text)
	want, err := strconv.ParseFloat(text, 64)
	valid := jsonNumber(text)
	if ok != valid {
		t.Fatalf("%q: read %v, JSON says %v", text, ok, valid)
	}
	if !valid {
		if isFast {
			t.Fatalf("%q: the fast way reads what is no number", text)
		}
		return
	}
	got, inRange := n.float64()
	if inRange != (err == nil) || inRange && math.Float64bits(got) != math.Float64bits(want) {
		t.Fatalf("%q: got %v %v, want %v %v", text, got, inRange, want, err)
	}
	if isFast && math.Float64bits(fast) != math.Float64bits(want) {
		t.Fatalf("%q: the fast way gives %v, want %v", text, fast, want)
	}
	want32, err := strconv.ParseFloat(text, 32)
	if got32, inRange := n.float32(); inRange != (err == nil) || inRange && got32 != float32(want32) {
		t.Fatalf("%q: float32 %v %v, want %v %v", text, got32, inRange, float32(want32), err)
	}
}

// jsonNumber is the grammar of RFC 8259, by hand and slowly.
func jsonNumber(s string) bool {
	digits := func(s string) (string, bool) {
		rest := strings.TrimLeft(s, "0123456789")
		return rest, len(rest) < len(s)
	}
	s = strings.TrimPrefix(s, "-")
	rest, ok := digits(s)
	if !ok || len(s)-len(rest) > 1 && s[0] == '0' {
		return false
	}
	if frac, found := strings.CutPrefix(rest, "."); found {
		if rest, ok = digits(frac); !ok {
			return false
		}
	}
	if rest != "" && (rest[0] == 'e' || rest[0] == 'E') {
		rest = strings.TrimPrefix(strings.TrimPrefix(rest[1:], "+"), "-")
		if strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
			return false
		}
		rest, ok = digits(rest)
	}
	return ok && rest == ""
}

func hardNumbers() []string {
	list := []string{"0", "-0", "0.0", "-0.0e5", "1", "01", "1.", ".1", "1e", "1e+", "-", "+1", "1e400", "1e-400", "5e-324", "2.4703282292062327e-324",
		"1.7976931348623157e308", "1.7976931348623159e308", "9007199254740993", "9007199254740992.5", "9007199254740993.0", "0.1", "123456789012345678901234567890",
		"0.000000000000000000000000000000012345678901234567891", "18446744073709551615", "18446744073709551616", "9999999999999999999", "99999999999999999999",
		"1234567890123456789e27", "1234567890123456789e-27", "1234567890123456789e28", "1234567890123456789e-28", "3.4028235e38", "3.4028236e38", "1e-46", "1.4e-45",
		"16777217", "16777219", "1.00000017881393432617187499", "1.00000017881393432617187500", "1.00000017881393432617187501", "8.5e-46",
		"4503599627370496.5", "4503599627370497.5", "0.50000000000000005551115123125782702118158340454101562", "1e1000000000", "0e1000000000", "12e-1000000000"}
	// Halfway between neighbours, and the decimals beside it: where rounding shows.
	for _, f := range []float64{1, 1.5, 3, 1 << 53, 1<<53 + 2, 0.1, 123456.789} {
		mid := new(big.Float).SetPrec(200).SetMode(big.ToNearestEven).Add(big.NewFloat(f), big.NewFloat(math.Nextafter(f, math.Inf(1))))
		mid.Quo(mid, big.NewFloat(2))
		text := mid.Text('f', 60)
		list = append(list, text, text+"1", strings.TrimRight(text, "0"), mid.Text('e', 18), mid.Text('g', 19))
	}
	return list
}

func TestNumbersRoundCorrectly(t *testing.T) {
	for _, s := range hardNumbers() {
		checkNumber(t, s)
		checkNumber(t, "-"+s)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		f := math.Float64frombits(r.Uint64())
		switch r.IntN(4) {
		case 0:
			f = r.NormFloat64()
		case 1:
			f = float64(r.Int64()) / 1000
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		checkNumber(t, strconv.FormatFloat(f, "efg"[r.IntN(3)], -1, 64))
		checkNumber(t, fmt.Sprintf("%de%d", r.Uint64(), r.IntN(70)-35))
		checkNumber(t, fmt.Sprintf("%d.%0*d", r.Uint64N(1<<r.IntN(60)), 1+r.IntN(19), r.Uint64N(1<<r.IntN(60))))
	}
}

func FuzzNumber(f *testing.F) {
	for _, s := range hardNumbers() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) < 500 && !strings.ContainsAny(s, "_xXpPinfINF") {
			checkNumber(t, s)
		}
	})
}

func TestIntegersAreExact(t *testing.T) {
	for text, want := range map[string]string{
		"9223372036854775807": "9223372036854775807", "-9223372036854775808": "-9223372036854775808", "9223372036854775808": "no", "-9223372036854775809": "no",
		"3.0": "3", "3.000": "3", "1e3": "1000", "1.5e1": "15", "1.5": "no", "1e19": "no", "0e99": "0", "-0": "0", "922337203685477580.7e1": "9223372036854775807",
		"18446744073709551616": "no", "1e-1": "no", "10e-1": "1",
	} {
		_, _, n, _ := parseAll(text)
		got := "no"
		if v, ok := n.int64(); ok {
			got = strconv.FormatInt(v, 10)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func checkTime(t *testing.T, text string) {
	t.Helper()
	got, bad := parseTime([]byte(text))
	normal := []byte(text)
	if len(normal) > 10 && (normal[10] == ' ' || normal[10] == 't') {
		normal[10] = 'T'
	}
	if n := len(normal); n > 0 && normal[n-1] == 'z' {
		normal[n-1] = 'Z'
	}
	want, err := time.Parse(time.RFC3339Nano, string(normal))
	valid := err == nil && rfc3339.Match(normal) && want.UnixMicro() >= MinTime && want.UnixMicro() <= MaxTime
	if valid != (bad == timeOK) || valid && got != want.UnixMicro() {
		t.Fatalf("%q: got %d %q, want %v %v", text, got, bad, want, err)
	}
	if valid {
		back, bad := parseTime(AppendTime(nil, got))
		if bad != timeOK || back != got {
			t.Fatalf("%q: %d is written %s", text, got, AppendTime(nil, got))
		}
	}
}

func TestTimesAgreeWithTheLibrary(t *testing.T) {
	for at := MinTime; at < MaxTime; at += 86400_000000 * 3 / 2 {
		checkTime(t, time.UnixMicro(at).UTC().Format(time.RFC3339Nano))
		checkTime(t, time.UnixMicro(at+123_450).In(time.FixedZone("", 5*3600+1800)).Format(time.RFC3339Nano))
	}
	for y := range 410 {
		for _, md := range []string{"02-28", "02-29", "02-30", "04-31", "12-31", "13-01", "00-10", "01-00"} {
			checkTime(t, fmt.Sprintf("%04d-%sT23:59:59-12:34", 1895+y, md))
		}
	}
}

func TestTimeFaultsAreNamed(t *testing.T) {
	for text, want := range map[string]timeFault{
		"2026-01-01T24:00:00Z": timeHour24, "2026-01-01T23:59:60Z": timeLeap, "2026-01-01T25:00:00Z": timeClock, "2026-01-01T23:60:00Z": timeClock,
		"2026-02-29T00:00:00Z": timeDate, "2026-01-01T00:00:00": timeZone, "1772366400": timeForm, "": timeForm, "2026-01-01": timeForm,
		"1899-12-31T23:59:59Z": timeRange, "2300-01-01T00:00:00Z": timeRange, "2026-01-01T00:00:00.Z": timeForm, "2026-01-01T00:00:00+0100": timeForm,
		"2026-01-01T00:00:00Zz": timeForm, "2026-01-01T00:00:00+99:00": timeClock,
	} {
		if _, got := parseTime([]byte(text)); got != want {
			t.Errorf("%q %s; want: %s", text, got, want)
		}
	}
}

func FuzzTime(f *testing.F) {
	f.Add("2026-01-01T00:00:00Z")
	f.Add("2024-02-29t23:59:59.999999999+23:59")
	f.Fuzz(checkTime)
}
