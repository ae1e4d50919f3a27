package xtables

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Table is one table as iptables-save prints it.
type Table struct {
	Name     string
	Chains   []string
	Policies map[string]string // of built-in chains: ACCEPT or DROP
	Rules    []Rule
	// Unreadable reports that the table has rules made with nft that iptables
	// cannot read; then it looks empty.
	Unreadable bool
}

// Rule is one rule of a table.
type Rule struct {
	Chain string
	// Text is the rule without its counters, as iptables-restore takes it:
	// "-A CHAIN ...".
	Text           string
	Packets, Bytes uint64 // 0 if they were not asked for
}

// Parse parses the output of iptables-save or iptables -S. It ignores other lines.
func Parse(text string) ([]Table, error) {
	var tables []Table
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if name, ok := strings.CutPrefix(line, "*"); ok {
			tables = append(tables, Table{Name: name})
			continue
		}
		if name, ok := unreadable(line); ok {
			tables = append(tables, Table{Name: name, Unreadable: true})
			continue
		}
		if len(tables) == 0 {
			continue
		}
		if err := tables[len(tables)-1].read(line); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

// unreadable parses the comment that iptables-nft prints in place of a table.
func unreadable(line string) (table string, ok bool) {
	rest, ok := strings.CutPrefix(line, "# Table `")
	if !ok {
		return "", false
	}
	table, _, ok = strings.Cut(rest, "' is incompatible")
	return table, ok
}

// read parses a line of the table.
func (t *Table) read(line string) error {
	switch {
	case strings.HasPrefix(line, ":"):
		t.chain(line[1:])
	case strings.HasPrefix(line, "-N "), strings.HasPrefix(line, "-P "):
		t.chain(line[3:])
	case strings.HasPrefix(line, "-A "):
		t.Rules = append(t.Rules, Rule{Chain: firstWord(line[3:]), Text: line})
	case strings.HasPrefix(line, "["):
		r, err := parseCounted(line)
		if err != nil {
			return err
		}
		t.Rules = append(t.Rules, r)
	}
	return nil
}

// chain adds a chain from its name and its policy, "-" or nothing for none.
func (t *Table) chain(line string) {
	name, rest, _ := strings.Cut(line, " ")
	t.Chains = append(t.Chains, name)
	if policy := firstWord(rest); policy != "" && policy != "-" {
		if t.Policies == nil {
			t.Policies = make(map[string]string)
		}
		t.Policies[name] = policy
	}
}

// parseCounted parses "[packets:bytes] -A CHAIN ...".
func parseCounted(line string) (r Rule, err error) {
	counters, text, _ := strings.Cut(line[1:], "] ")
	if !strings.HasPrefix(text, "-A ") {
		return Rule{}, fmt.Errorf("iptables-save printed %q, which is no rule", line)
	}
	r = Rule{Chain: firstWord(text[3:]), Text: text}
	packets, bytes, _ := strings.Cut(counters, ":")
	if r.Packets, err = strconv.ParseUint(packets, 10, 64); err == nil {
		r.Bytes, err = strconv.ParseUint(bytes, 10, 64)
	}
	if err != nil {
		return Rule{}, fmt.Errorf("iptables-save printed %q, whose counters are no numbers: %w", line, err)
	}
	return r, nil
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// Deletion returns the line of a script that deletes the rule, in the words that
// iptables itself printed.
func (r Rule) Deletion() string { return "-D" + r.Text[len("-A"):] + "\n" }

// Spec returns the rule after its chain, as it was printed.
func (r Rule) Spec() string {
	return strings.TrimPrefix(r.Text[len("-A ")+len(r.Chain):], " ")
}

// SplitWords splits a rule into words. Only comments and the like are quoted, which
// no rule of libvirt's has: quoted text just has to stay one word.
func SplitWords(spec string) []string {
	if !strings.ContainsAny(spec, `"\`) {
		return strings.Fields(spec)
	}
	var words []string
	var word strings.Builder
	quoted, escaped, inWord := false, false, false
	for _, c := range spec {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// IsPlain reports whether an interface's name is a word without special meaning to
// iptables-restore, which splits and unquotes like a shell, takes "!" for a negation
// and a "+" at the end for a wildcard. iptables-save does not quote names, so a name
// that needs quotes would break saving and restoring the rules.
func IsPlain(name string) bool {
	for i, c := range name {
		if !IsWord(c) && (i == 0 || !strings.ContainsRune("-.", c)) {
			return false
		}
	}
	return name != ""
}

// IsWord reports whether a character has no special meaning to iptables-restore
// anywhere in a word.
func IsWord(c rune) bool {
	return c == '_' || c <= unicode.MaxASCII && (unicode.IsLetter(c) || unicode.IsDigit(c))
}
