package network

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is far above the nesting of any network document.
const maxDepth = 32

// walker reads a document once. As an xml.TokenReader it returns what the tables
// define, without namespaces; it refuses unknown elements where a firewall would
// have to obey them, and ignores the rest.
type walker struct {
	dec     *xml.Decoder
	open    []frame // the elements returned and not yet closed
	depth   int     // of the document, including ignored elements
	pending xml.Token
	own     *ownMetadata
}

// frame is one open element.
type frame struct {
	name  string
	def   *element
	space string
	seen  map[string]bool // children that may occur once and did
}

// raw returns the next token of the document, with the checks that apply
// everywhere.
func (w *walker) raw() (xml.Token, error) {
	tok, err := w.dec.Token()
	if err != nil {
		return nil, documentError(err)
	}
	switch tok.(type) {
	case xml.StartElement:
		if w.depth++; w.depth > maxDepth {
			return nil, &LimitError{Field: "document", Got: w.depth, Max: maxDepth, Unit: "nested elements"}
		}
	case xml.EndElement:
		w.depth--
	case xml.Directive:
		return nil, invalid("document", "it has a <!DOCTYPE> or the like, which no libvirt document has: remove it")
	}
	return tok, nil
}

// Token returns the next token that the tables define.
func (w *walker) Token() (xml.Token, error) {
	if tok := w.pending; tok != nil {
		w.pending = nil
		return tok, nil
	}
	for {
		tok, err := w.raw()
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			tok, err = w.start(t)
		case xml.EndElement:
			w.open = w.open[:len(w.open)-1]
			t.Name.Space = ""
			tok = t
		case xml.CharData:
			tok, err = w.text(t)
		default:
			tok = nil
		}
		if tok != nil || err != nil {
			return tok, err
		}
	}
}

// start handles a child of the innermost open element. It returns a nil token for
// an ignored one.
func (w *walker) start(t xml.StartElement) (xml.Token, error) {
	parent := &w.open[len(w.open)-1]
	if len(w.open) == 1 && t.Name == (xml.Name{Local: "metadata"}) {
		return nil, w.metadata(parent)
	}
	def := parent.def.children[t.Name.Local]
	if def == nil || t.Name.Space != parent.space {
		if parent.def.ignoreUnknown {
			return nil, w.skip()
		}
		return nil, invalid(w.location(parent.name), "it contains an unknown element %s: correct its name, or remove it", quote(display(t.Name)))
	}
	if err := w.checkOnce(parent, t.Name.Local, def); err != nil {
		return nil, err
	}
	return w.enter(t, def, parent.space)
}

// checkOnce refuses the second of an element that may occur once.
func (w *walker) checkOnce(parent *frame, name string, def *element) error {
	if !def.once {
		return nil
	}
	if parent.seen[name] {
		return invalid(w.location(parent.name), "it contains a second element %s: keep one", quote(name))
	}
	if parent.seen == nil {
		parent.seen = make(map[string]bool, len(parent.def.children))
	}
	parent.seen[name] = true
	return nil
}

// enter opens an element and returns its token with the attributes that def
// defines.
func (w *walker) enter(t xml.StartElement, def *element, space string) (xml.Token, error) {
	out := xml.StartElement{Name: xml.Name{Local: t.Name.Local}}
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || a.Name == (xml.Name{Local: "xmlns"}) {
			continue
		}
		kind, known := def.attrs[a.Name.Local]
		if !known || a.Name.Space != "" {
			if def.ignoreUnknown {
				continue
			}
			return nil, invalid(w.location(t.Name.Local), "it has an unknown attribute %s: correct its name, or remove it", quote(display(a.Name)))
		}
		for _, b := range out.Attr {
			if b.Name == a.Name {
				return nil, invalid(w.location(t.Name.Local), "it has the attribute %s twice: keep one", quote(a.Name.Local))
			}
		}
		if want := kind.refuse(a.Value); want != "" {
			return nil, invalid(w.location(t.Name.Local), "its attribute %s is %s: give %s", a.Name.Local, quote(a.Value), want)
		}
		out.Attr = append(out.Attr, a)
	}
	w.open = append(w.open, frame{name: t.Name.Local, def: def, space: space})
	return out, nil
}

// refuse returns a description of the kind's values if s is not one, else "".
func (k attrKind) refuse(s string) string {
	switch k {
	case yesNo:
		if s != "yes" && s != "no" {
			return "yes or no"
		}
	case number, positive:
		const want = "a decimal number"
		if s == "" || len(s) > 10 || strings.Trim(s, "0123456789") != "" {
			return want
		}
		if k == positive && strings.Trim(s, "0") == "" {
			return want + " above 0"
		}
	}
	return ""
}

// text ignores white space and refuses other text where only elements may be.
func (w *walker) text(t xml.CharData) (xml.Token, error) {
	top := w.open[len(w.open)-1]
	switch {
	case top.def.text:
		return t, nil
	case top.def.ignoreUnknown || strings.Trim(string(t), " \t\r\n") == "":
		return nil, nil
	}
	return nil, invalid(w.location(top.name), "it contains the text %s: remove it", quote(strings.TrimSpace(string(t))))
}

// skip reads to the end of the element that was just opened.
func (w *walker) skip() error {
	for outside := w.depth - 1; w.depth > outside; {
		if _, err := w.raw(); err != nil {
			return err
		}
	}
	return nil
}

// location names an element for a message.
func (w *walker) location(name string) string {
	line, _ := w.dec.InputPos()
	return fmt.Sprintf("<%s> in line %d", plain(name), line)
}

// display names an element or attribute for a message, with its namespace
// unless that is ours.
func display(n xml.Name) string {
	if n.Space == "" || n.Space == MetadataNamespace {
		return n.Local
	}
	return n.Space + " " + n.Local
}

// documentError turns an error of the XML parser into one of ours.
func documentError(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return invalid("document", "it is not well-formed XML in UTF-8 (%s): pass what virsh net-dumpxml prints", plain(err.Error()))
}
