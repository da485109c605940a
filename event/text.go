package event

import (
	"strconv"
	"strings"
)

// sentence joins the parts of a dead letter's detail.
func sentence(parts ...string) string { return strings.Join(parts, "") }

func itoa(n int) string { return strconv.Itoa(n) }

// printable shows one byte of a text.
func printable(c byte) string { return strconv.QuoteRuneToASCII(rune(c)) }

// brief quotes a producer's word for a detail, at most 60 bytes of it.
func brief(b []byte) string {
	const limit = 60
	if len(b) > limit {
		return strconv.Quote(strings.ToValidUTF8(string(b[:limit]), "")) + "…"
	}
	return strconv.Quote(string(b))
}
