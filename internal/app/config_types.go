package app

import (
	"fmt"
	"math"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written "90s", "12h" or "30d".
type Duration time.Duration

// MarshalText writes the largest exact units: "30d", "1h30m".
func (d Duration) MarshalText() ([]byte, error) {
	v, day := time.Duration(d), 24*time.Hour
	if v >= day && v%day == 0 {
		return fmt.Appendf(nil, "%dd", v/day), nil
	}
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

// UnmarshalText reads what time.ParseDuration reads, and days.
func (d *Duration) UnmarshalText(b []byte) error {
	s := string(b)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || math.IsNaN(n) || math.Abs(n) > 36500 {
			return fmt.Errorf("duration %q: want a number of days such as 30d", s)
		}
		*d = Duration(n * 24 * float64(time.Hour))
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("duration %q: want a number with a unit such as 90s, 12h or 30d", s)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes written "64MB"; K, M, G and T are powers of 1024.
type Size int64

const sizeUnits = "KMGT"

// MarshalText writes the largest exact unit.
func (s Size) MarshalText() ([]byte, error) {
	v, unit := int64(s), ""
	for i := 0; i < len(sizeUnits) && v != 0 && v%1024 == 0; i++ {
		v, unit = v/1024, sizeUnits[i:i+1]
	}
	return fmt.Appendf(nil, "%d%sB", v, unit), nil
}

// UnmarshalText reads "1048576", "1024KB", "1MB" and "1M".
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(strings.TrimSpace(string(b))), "B"), "I")
	scale := int64(1)
	if n := len(text); n > 0 {
		if i := strings.IndexByte(sizeUnits, text[n-1]); i >= 0 {
			text, scale = strings.TrimSpace(text[:n-1]), 1<<(10*(i+1))
		}
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64/scale {
		return fmt.Errorf("size %q: want bytes or a number with a unit such as 64MB", b)
	}
	*s = Size(v * scale)
	return nil
}

const redacted = "******"

// Secret is a value that is never shown. It is written as it is, or as
// "file:PATH" or "env:NAME", which is read when the configuration is loaded.
type Secret string

// MarshalText hides the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// UnmarshalText reads the value or what it refers to.
func (s *Secret) UnmarshalText(b []byte) error {
	v, err := resolveSecret(string(b))
	*s = Secret(v)
	return err
}

func resolveSecret(v string) (string, error) {
	if path, ok := strings.CutPrefix(v, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read secret: %w", err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	if name, ok := strings.CutPrefix(v, "env:"); ok {
		b, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("read secret: environment variable %s is not set", name)
		}
		return b, nil
	}
	return v, nil
}

// ServerURL is an address that may carry a user and a password. The password
// is hidden when it is shown. Like a [Secret] it may be "file:PATH" or
// "env:NAME".
type ServerURL string

// UnmarshalText reads the address or what it refers to.
func (u *ServerURL) UnmarshalText(b []byte) error {
	v, err := resolveSecret(string(b))
	*u = ServerURL(v)
	return err
}

// MarshalText writes the address without its password.
func (u ServerURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// String is the address without its password.
func (u ServerURL) String() string {
	p, err := url.Parse(string(u))
	if err != nil {
		return redacted // what cannot be parsed may hold anything
	}
	q := p.Query()
	if q.Has("password") {
		q.Set("password", redacted)
		p.RawQuery = q.Encode()
	}
	if _, has := p.User.Password(); has {
		p.User = url.UserPassword(p.User.Username(), redacted)
	}
	return strings.ReplaceAll(p.String(), url.QueryEscape(redacted), redacted)
}

// GoString hides the password from %#v.
func (u ServerURL) GoString() string { return u.String() }
