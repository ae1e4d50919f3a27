package choice

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

// maxFile is far above the size of any network.conf.
const maxFile = 1 << 20

// ReadLibvirt returns firewall_backend of libvirt's network.conf, with the line that
// sets it; line 0 for a missing file or key. The value may be any word: Choose
// validates it.
func ReadLibvirt(file string) (value string, line int, err error) {
	text, err := trusted.ReadAnybodys(file, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("reading libvirt's configuration %s: %w", file, err)
	}
	value, line, err = parseLibvirt(text)
	if err != nil {
		return "", 0, fmt.Errorf("%s, line %d: %w", file, line, err)
	}
	return value, line, nil
}

// parseLibvirt finds firewall_backend in libvirt's own syntax. With an error,
// line is where it is. libvirt would not start with such a file either.
func parseLibvirt(text []byte) (value string, line int, err error) {
	p := &parser{rest: text, line: 1}
	for p.space(); len(p.rest) > 0; p.space() {
		if p.comment() {
			continue
		}
		at := p.line
		name, v, err := p.statement()
		if err != nil {
			return "", p.line, err
		}
		// Of several, the first counts, as for libvirt.
		if name == "firewall_backend" && line == 0 {
			if v.kind != isString {
				return "", at, errors.New("firewall_backend is no string: write it in quotes")
			}
			value, line = v.text, at
		}
	}
	return value, line, nil
}

// parser parses a file of libvirt's: name = value, where a value is a number, a
// string in one of three kinds of quotes, or a list of values.
type parser struct {
	rest  []byte
	line  int
	depth int
}

type kind int

const (
	isNumber kind = iota
	isString
	isList
)

type content struct {
	kind kind
	text string
}

// maxDepth of lists in lists; libvirt itself would run out of stack.
const maxDepth = 100

func (p *parser) statement() (name string, v content, err error) {
	if name, err = p.name(); err != nil {
		return "", v, err
	}
	p.blanks()
	if !p.take("=") {
		return "", v, fmt.Errorf("no = after %s: write %s = value", name, name)
	}
	if v, err = p.value(); err != nil {
		return "", v, err
	}
	p.blanks()
	if len(p.rest) > 0 && !p.comment() && !p.take(";") && !p.take("\n") && !p.take("\r") {
		return "", v, fmt.Errorf("something follows the value of %s: begin a new line", name)
	}
	return name, v, nil
}

func (p *parser) name() (string, error) {
	n := 0
	for n < len(p.rest) && (isLetter(p.rest[n]) || n > 0 && (isDigit(p.rest[n]) || p.rest[n] == '_')) {
		n++
	}
	if n == 0 {
		return "", errors.New("a line begins with the name of a setting or with #")
	}
	return p.cut(n), nil
}

func (p *parser) value() (content, error) {
	p.blanks()
	switch {
	case p.take(`"""`):
		return p.quoted(`"""`)
	case p.take(`"`):
		return p.quoted(`"`)
	case p.take(`'`):
		return p.quoted(`'`)
	case p.take("["):
		return content{kind: isList}, p.list()
	}
	n := 0
	if len(p.rest) > 0 && (p.rest[0] == '-' || p.rest[0] == '+') {
		n++
	}
	digits := n
	for n < len(p.rest) && isDigit(p.rest[n]) {
		n++
	}
	if n == digits {
		return content{}, errors.New("no value: write a number, a string in quotes or a list in [ ]")
	}
	return content{isNumber, p.cut(n)}, nil
}

// quoted reads up to the closing quote. There are no escapes, and only triple quotes
// may span lines.
func (p *parser) quoted(quote string) (content, error) {
	end := bytes.Index(p.rest, []byte(quote))
	if end < 0 || len(quote) == 1 && bytes.ContainsAny(p.rest[:end], "\r\n") {
		return content{}, errors.New("the quote is not closed")
	}
	text := p.cut(end)
	p.take(quote)
	return content{isString, text}, nil
}

func (p *parser) list() error {
	if p.depth++; p.depth > maxDepth {
		return errors.New("lists are nested too deep")
	}
	defer func() { p.depth-- }()
	for p.space(); !p.take("]"); p.space() {
		if len(p.rest) == 0 {
			return errors.New("the list is not closed with ]")
		}
		if _, err := p.value(); err != nil {
			return err
		}
		p.space()
		if !p.take(",") && !bytes.HasPrefix(p.rest, []byte("]")) {
			return errors.New("no comma between two values of a list")
		}
	}
	return nil
}

// comment skips one, up to the end of the line.
func (p *parser) comment() bool {
	if !p.take("#") {
		return false
	}
	n := bytes.IndexAny(p.rest, "\r\n")
	if n < 0 {
		n = len(p.rest)
	}
	p.cut(n)
	return true
}

// space skips blanks and ends of lines.
func (p *parser) space() { p.skip(" \t\r\n") }

func (p *parser) blanks() { p.skip(" \t") }

func (p *parser) skip(what string) {
	p.cut(len(p.rest) - len(bytes.TrimLeft(p.rest, what)))
}

func (p *parser) take(word string) bool {
	if !bytes.HasPrefix(p.rest, []byte(word)) {
		return false
	}
	p.cut(len(word))
	return true
}

// cut consumes the next bytes and counts their lines.
func (p *parser) cut(n int) string {
	out := p.rest[:n]
	p.rest = p.rest[n:]
	p.line += bytes.Count(out, []byte("\n"))
	return string(out)
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
