package event

import "strconv"

// Times that Kedge stores: what ClickHouse's DateTime64(6) can hold.
const (
	MinTime int64 = -2208988800_000000 // 1900-01-01T00:00:00Z
	MaxTime int64 = 10413791999_999999 // 2299-12-31T23:59:59.999999Z
)

// timeFault says why a text is no time; empty if it is one.
type timeFault string

const (
	timeOK     timeFault = ""
	timeForm   timeFault = "is not an RFC 3339 time such as 2026-01-02T03:04:05Z"
	timeZone   timeFault = "has no zone: end it with Z or an offset such as +02:00"
	timeDate   timeFault = "names a day that does not exist"
	timeHour24 timeFault = "has an hour of 24: write 00:00 of the next day"
	timeLeap   timeFault = "has a second of 60: leap seconds have no place on the time line"
	timeClock  timeFault = "has an hour, minute or offset that does not exist"
	timeRange  timeFault = "lies outside 1900–2299"
)

// ParseTime reads an RFC 3339 time into µs since the Unix epoch. Any offset is
// taken; digits beyond microseconds are cut off. A blank may stand for the T.
func ParseTime(b []byte) (int64, error) {
	t, bad := parseTime(b)
	if bad != timeOK {
		return 0, badTimeError{brief(b), bad}
	}
	return t, nil
}

type badTimeError struct {
	text  string
	fault timeFault
}

func (e badTimeError) Error() string { return "time " + e.text + " " + string(e.fault) }

func parseTime(b []byte) (int64, timeFault) {
	const form = len("2006-01-02T15:04:05")
	if len(b) < form || b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' {
		return 0, timeForm
	}
	if sep := b[10]; sep != 'T' && sep != 't' && sep != ' ' {
		return 0, timeForm
	}
	century, year, month, day := two(b, 0), two(b, 2), two(b, 5), two(b, 8)
	hour, minute, second := two(b, 11), two(b, 14), two(b, 17)
	if century|year|month|day|hour|minute|second < 0 {
		return 0, timeForm
	}
	year += century * 100
	micros, zone, bad := parseTail(b[form:])
	switch {
	case bad != timeOK:
		return 0, bad
	case month < 1 || month > 12 || day < 1 || day > daysIn(year, month):
		return 0, timeDate
	case hour == 24:
		return 0, timeHour24
	case second == 60:
		return 0, timeLeap
	case hour > 24 || minute > 59 || second > 60:
		return 0, timeClock
	}
	secs := int64(daysSinceEpoch(year, month, day))*86400 + int64(hour*3600+minute*60+second-zone)
	t := secs*1_000_000 + int64(micros)
	if t < MinTime || t > MaxTime {
		return 0, timeRange
	}
	return t, timeOK
}

// two reads two digits at i, −1 if they are none.
func two(b []byte, i int) int {
	hi, lo := b[i]-'0', b[i+1]-'0'
	if hi > 9 || lo > 9 {
		return -1
	}
	return int(hi)*10 + int(lo)
}

// parseTail reads the fraction and the zone (seconds east of UTC).
func parseTail(b []byte) (micros, zone int, bad timeFault) {
	p := 0
	if p < len(b) && b[p] == '.' {
		p++
		for scale := 100_000; p < len(b) && b[p]-'0' <= 9; p++ {
			micros += int(b[p]-'0') * scale
			scale /= 10
		}
		if p == 1 {
			return 0, 0, timeForm
		}
	}
	b = b[p:]
	switch {
	case len(b) == 0:
		return 0, 0, timeZone
	case len(b) == 1 && b[0]|0x20 == 'z':
		return micros, 0, timeOK
	case len(b) != len("+00:00") || b[0] != '+' && b[0] != '-' || b[3] != ':':
		return 0, 0, timeForm
	}
	hours, minutes := two(b, 1), two(b, 4)
	if hours < 0 || minutes < 0 {
		return 0, 0, timeForm
	}
	if hours > 23 || minutes > 59 {
		return 0, 0, timeClock
	}
	zone = hours*3600 + minutes*60
	if b[0] == '-' {
		zone = -zone
	}
	return micros, zone, timeOK
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSinceEpoch counts days from 1970-01-01 in the proleptic Gregorian
// calendar: years start in March, so that the leap day is the last one.
func daysSinceEpoch(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400 // years are ≥ −1 only for year 0 in January: still 0
	if year < 0 {
		era = -1
	}
	yoe := year - era*400
	doy := (153*(month-3)+2)/5 + day - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// AppendTime appends a time as RFC 3339 in UTC, with as many fractional digits
// as it needs.
func AppendTime(dst []byte, micros int64) []byte {
	days, rest := floorDiv(micros, 86400_000000)
	year, month, day := civil(days)
	secs := rest / 1_000_000
	if year < 0 || year > 9999 {
		dst = strconv.AppendInt(dst, int64(year), 10) // no RFC 3339, so whoever reads it refuses it
	} else {
		dst = appendPadded(dst, year, 4)
	}
	dst = appendPadded(append(dst, '-'), month, 2)
	dst = appendPadded(append(dst, '-'), day, 2)
	dst = appendPadded(append(dst, 'T'), int(secs/3600), 2)
	dst = appendPadded(append(dst, ':'), int(secs/60%60), 2)
	dst = appendPadded(append(dst, ':'), int(secs%60), 2)
	if frac := int(rest % 1_000_000); frac != 0 {
		dst = appendPadded(append(dst, '.'), frac, 6)
		for dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
	}
	return append(dst, 'Z')
}

func floorDiv(a, b int64) (q, r int64) {
	q, r = a/b, a%b
	if r < 0 {
		q, r = q-1, r+b
	}
	return q, r
}

// civil is the inverse of daysSinceEpoch.
func civil(days int64) (year, month, day int) {
	z := days + 719468
	era, doe := floorDiv(z, 146097)
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = int(doy - (153*mp+2)/5 + 1)
	month = int(mp + 3)
	year = int(yoe + era*400)
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

func appendPadded(dst []byte, v, width int) []byte {
	var digits [8]byte
	for i := width - 1; i >= 0; i-- {
		digits[i] = byte('0' + v%10)
		v /= 10
	}
	return append(dst, digits[:width]...)
}
