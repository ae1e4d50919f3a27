package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// tidyAll sets every page's date, which the generators leave out, and formats the
// options as man pages do: the generators indent with tabs, which manual readers
// are free to drop.
func tidyAll(dir string) error {
	date, err := buildDate()
	if err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		if err := os.WriteFile(page, []byte(tidy(string(text), date)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

var (
	generatedTitle = regexp.MustCompile(`(?m)^(\.TH "[^"]*" "1") "[^"]*"`)
	writtenTitle   = regexp.MustCompile(`(?m)^(\.TH \S+ \d) ""`)
	option         = regexp.MustCompile(`(?m)(?:^\n\.PP\n)?^(\\fB-.*)\n\t(.*)$`)
)

func tidy(page, date string) string {
	page = generatedTitle.ReplaceAllString(page, `$1 "`+date+`"`)
	page = writtenTitle.ReplaceAllString(page, `$1 "`+date+`"`)
	page = option.ReplaceAllString(page, ".TP\n$1\n$2")
	// Switches are off by default, as usual: the page need not mention it.
	return strings.ReplaceAll(page, `\fP[=false]`, `\fP`)
}

// buildDate returns the date of the sources if the build sets it, so that builds
// are reproducible.
func buildDate() (string, error) {
	at := time.Now()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return "", fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
		}
		at = time.Unix(seconds, 0)
	}
	return at.UTC().Format(time.DateOnly), nil
}
