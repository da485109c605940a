package chdb

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Errors that callers branch on.
var (
	// ErrLocked says that another process, or another DB of this one, has the
	// data directory open.
	ErrLocked = errors.New("data directory is in use")
	// ErrClosed says that the DB was closed.
	ErrClosed = errors.New("embedded engine is closed")
)

// Error is what the engine answered to a statement.
type Error struct {
	Code    int    // ClickHouse error code, 60 for an unknown table; 0 when the text names none
	Name    string // its symbolic name, "UNKNOWN_TABLE"; may be empty
	Message string // the engine's whole text, as a ClickHouse server sends it
}

// Error returns the engine's text.
func (e *Error) Error() string { return e.Message }

var (
	codePattern = regexp.MustCompile(`Code: (\d+)\.`)
	namePattern = regexp.MustCompile(`\(([A-Z][A-Z0-9_]{2,})\)`)
)

// ParseError reads the engine's error text; empty text is no error.
func ParseError(text string) error {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	e := &Error{Message: text}
	if m := codePattern.FindStringSubmatch(text); m != nil {
		e.Code, _ = strconv.Atoi(m[1])
	}
	if m := namePattern.FindAllStringSubmatch(text, -1); m != nil {
		e.Name = m[len(m)-1][1]
	}
	if e.Code == 0 {
		e.Message = "Code: 1001. DB::Exception: " + text
	}
	return e
}

// because prefers the caller's reason over the engine's "query was cancelled".
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
