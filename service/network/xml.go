package network

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// FromXML parses a libvirt <network> document as virsh net-dumpxml prints it.
// What concerns a firewall is used or refused, never overlooked; the rest of what
// libvirt defines is ignored. The error is an *InvalidError or a *LimitError.
func FromXML(doc []byte) (Network, error) {
	if len(doc) > MaxXMLBytes {
		return Network{}, &LimitError{Field: "document", Got: len(doc), Max: MaxXMLBytes, Unit: "bytes"}
	}
	// Editors put a byte order mark in front of UTF-8, which libvirt accepts too.
	doc = bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))
	w := &walker{dec: xml.NewDecoder(bytes.NewReader(doc))}
	w.dec.CharsetReader = onlyUTF8
	if err := w.root(); err != nil {
		return Network{}, err
	}
	var def libvirtxml.Network
	if err := decode(w, &def); err != nil {
		return Network{}, err
	}
	if err := w.end(); err != nil {
		return Network{}, err
	}
	n, err := fromLibvirt(&def, w.own)
	if err != nil {
		return Network{}, err
	}
	n = n.normal()
	return n, n.Validate()
}

// decode decodes the walker's tokens into a struct.
func decode(w *walker, into any) error {
	err := xml.NewTokenDecoder(w).Decode(into)
	if err == nil {
		return nil
	}
	var bad *InvalidError
	var limit *LimitError
	if errors.As(err, &bad) || errors.As(err, &limit) {
		return err
	}
	return invalid("document", "libvirt could not read it (%s): correct it", plain(err.Error()))
}

// onlyUTF8 refuses a declared encoding, except ASCII, which UTF-8 contains.
func onlyUTF8(label string, in io.Reader) (io.Reader, error) {
	if strings.EqualFold(label, "us-ascii") || strings.EqualFold(label, "ascii") {
		return in, nil
	}
	return nil, errors.New("convert it to UTF-8 and declare that")
}

// root finds <network> and makes it the pending token.
func (w *walker) root() error {
	for {
		tok, err := w.raw()
		if errors.Is(err, io.EOF) {
			return invalid("document", "it is empty: pass what virsh net-dumpxml prints")
		}
		if err != nil {
			return err
		}
		t, ok := tok.(xml.StartElement)
		if !ok {
			if err := blank(tok); err != nil {
				return err
			}
			continue
		}
		if t.Name != (xml.Name{Local: "network"}) {
			return invalid("document", "its root element is %s, not libvirt's <network>: pass what virsh net-dumpxml prints", quote(display(t.Name)))
		}
		w.pending, err = w.enter(t, libvirtNetwork, "")
		return err
	}
}

// end makes sure that nothing follows the root element.
func (w *walker) end() error {
	for {
		tok, err := w.raw()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok := tok.(xml.StartElement); ok {
			return invalid("document", "it has more than one root element: pass one network at a time")
		}
		if err := blank(tok); err != nil {
			return err
		}
	}
}

// blank refuses text outside the root element.
func blank(tok xml.Token) error {
	if text, ok := tok.(xml.CharData); ok && len(bytes.Trim(text, " \t\r\n")) > 0 {
		return invalid("document", "it has the text %s outside its root element: remove it", quote(string(text)))
	}
	return nil
}
