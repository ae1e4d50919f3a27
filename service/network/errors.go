package network

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The kinds of error, for errors.Is.
var (
	// ErrInvalid marks a document or setting that cannot be what its author meant.
	ErrInvalid = errors.New("invalid network")
	// ErrLimit marks a document or setting that asks for more than one client may have.
	ErrLimit = errors.New("limit exceeded")
	// ErrNotSupported marks what the contract names and this version cannot do.
	ErrNotSupported = errors.New("not supported")
)

// InvalidError is what is wrong with which part of a network, and what to do.
type InvalidError struct {
	Field  string // a contract key such as "Bridge", or a place in the document
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// Is makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// LimitError means that a limit was exceeded.
type LimitError struct {
	Field    string
	Got, Max int
	Unit     string // what was counted, in the plural
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %d %s given, but the limit is %d: use fewer", e.Field, e.Got, e.Unit, e.Max)
}

// Is makes errors.Is(err, ErrLimit) true.
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// maxQuoted keeps messages readable on a bus and in a log line.
const maxQuoted = 48

// quote returns s for a message: shortened, and escaped so that it is valid
// UTF-8 without control characters, which D-Bus demands.
func quote(s string) string { return strconv.Quote(shorten(s, maxQuoted)) }

// plain is quote without the quotation marks, for names and for texts of
// other packages.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(shorten(s, 4*maxQuoted), "?"))
}

func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}
