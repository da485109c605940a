package web

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// parsePlain reads the head of a plain request, CRLF CRLF included, the way
// net/http does; nil means that the head is not a plain one.
func parsePlain(text string, paths []string) *http.Request {
	line, rest, _ := strings.Cut(text, "\r\n")
	target, ok := strings.CutPrefix(line, "POST ")
	if !ok {
		return nil
	}
	if target, ok = strings.CutSuffix(target, " HTTP/1.1"); !ok {
		return nil
	}
	r := &http.Request{
		Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
		Header: http.Header{}, RequestURI: target, URL: &url.URL{Path: target},
	}
	ok = slices.ContainsFunc(paths, func(p string) bool { return isPlainPath(p, target) })
	for ok && rest != "\r\n" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		ok = addPlainHeader(r, line)
	}
	if !ok || r.ContentLength < 0 || r.Host == "" {
		return nil
	}
	return r
}

// isPlainPath reports whether a path has a pattern's segments. One in braces
// stands for any that is written with letters, digits and - _ . : alone, so that
// nothing is to be unescaped or cleaned.
func isPlainPath(pattern, path string) bool {
	for {
		want, patterns, more := strings.Cut(pattern, "/")
		got, paths, also := strings.Cut(path, "/")
		fits := want == got
		if strings.HasPrefix(want, "{") {
			fits = isPlainSegment(got)
		}
		if !fits || more != also {
			return false
		}
		if !more {
			return true
		}
		pattern, path = patterns, paths
	}
}

func isPlainSegment(s string) bool {
	for i := range len(s) {
		if !isToken(s[i:i+1]) && s[i] != '.' && s[i] != ':' {
			return false
		}
	}
	return s != "" && s != "." && s != ".."
}

// addPlainHeader takes one line of a head. false: it is not for us to judge.
func addPlainHeader(r *http.Request, line string) bool {
	name, value, _ := strings.Cut(line, ":")
	if !isToken(name) || !isVisible(value) {
		return false
	}
	value = strings.Trim(value, " ")
	name = textproto.CanonicalMIMEHeaderKey(name)
	switch name {
	case "Host":
		if r.Host != "" || !isPlainHost(value) {
			return false
		}
		r.Host = value
		return true
	case "Content-Length":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > maxPlainBody || r.ContentLength >= 0 {
			return false
		}
		r.ContentLength = int64(n)
	case "Connection":
		if !strings.EqualFold(value, "keep-alive") {
			return false
		}
	case "Transfer-Encoding", "Trailer", "Te", "Expect", "Upgrade", "Http2-Settings", "Pragma":
		return false
	}
	r.Header[name] = append(r.Header[name], value)
	return true
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != ""
}

func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isPlainHost takes names, addresses and ports.
func isPlainHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isToken(s[i:i+1]) && c != '.' && c != ':' && c != '[' && c != ']' {
			return false
		}
	}
	return s != ""
}
