package libvirt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// Network is one that libvirt has, from its status document.
type Network struct {
	Name, Bridge string
	// Definition is the live definition. Understood is false for one that this
	// service could not govern: of another mode, or newer than it.
	Definition network.Network
	Understood bool
}

// maxStatus bounds a status document: the definition, which may be as long as a
// network's document, and what libvirt adds to it.
const maxStatus = 2 * network.MaxXMLBytes

// parseStatus parses <networkstatus>...<network>. It may be malformed or long.
func parseStatus(doc []byte) (Network, error) {
	p := statusParser{doc: doc, dec: xml.NewDecoder(bytes.NewReader(doc))}
	if err := p.parse(); err != nil {
		return Network{}, err
	}
	if p.found.Name == "" || p.end == 0 {
		return Network{}, errors.New("it has no <network> with a <name> in <networkstatus>")
	}
	if n, err := network.FromXML(doc[p.begin:p.end]); err == nil && n.Bridge == p.found.Bridge {
		p.found.Definition, p.found.Understood = n, true
	}
	return p.found, nil
}

// statusParser parses a document without recursion, so that its depth does not
// matter.
type statusParser struct {
	doc        []byte
	dec        *xml.Decoder
	path       []string // of the open elements
	begin, end int64    // offsets of <network>
	found      Network
}

func (p *statusParser) parse() error {
	for p.end == 0 {
		at := p.dec.InputOffset()
		token, err := p.dec.RawToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading its XML: %w", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			p.open(t, at)
		case xml.EndElement:
			if len(p.path) == 0 || p.path[len(p.path)-1] != t.Name.Local {
				return fmt.Errorf("reading its XML: </%.40s> closes nothing", t.Name.Local)
			}
			if p.in("networkstatus", "network") {
				p.end = p.dec.InputOffset()
			}
			p.path = p.path[:len(p.path)-1]
		case xml.CharData:
			if p.in("networkstatus", "network", "name") {
				p.found.Name += string(t)
			}
		}
	}
	return nil
}

func (p *statusParser) open(t xml.StartElement, at int64) {
	p.path = append(p.path, t.Name.Local)
	switch {
	case p.in("networkstatus", "network"):
		p.begin = at
	case p.in("networkstatus", "network", "bridge"):
		for _, a := range t.Attr {
			if a.Name.Local == "name" && a.Name.Space == "" {
				p.found.Bridge = a.Value
			}
		}
	}
}

func (p *statusParser) in(path ...string) bool {
	if len(p.path) != len(path) {
		return false
	}
	for i := range path {
		if p.path[i] != path[i] {
			return false
		}
	}
	return true
}
