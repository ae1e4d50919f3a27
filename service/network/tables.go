package network

// attrKind is the form of an attribute's value.
type attrKind int

const (
	anyText  attrKind = iota
	yesNo             // yes or no
	number            // decimal digits
	positive          // a number above 0
)

// element is what a schema defines inside one element.
type element struct {
	attrs    map[string]attrKind
	children map[string]*element
	// once: the schema allows one such element in its parent; with two it would
	// be undefined which applies.
	once bool
	// text: the element has text for content.
	text bool
	// ignoreUnknown: what the schema does not define is ignored, as it does not
	// concern a firewall.
	ignoreUnknown bool
}

// libvirtNetwork is the part of libvirt's schema (network.rng and
// networkcommon.rng of libvirt 12.8) that concerns a firewall, with what older
// documents have there and libvirt ignores.
var libvirtNetwork = &element{
	ignoreUnknown: true,
	attrs:         map[string]attrKind{"ipv6": yesNo},
	children: map[string]*element{
		"name":    {once: true, text: true},
		"uuid":    {once: true, text: true},
		"forward": libvirtForward,
		"bridge": {once: true, attrs: map[string]attrKind{
			"name": anyText, "zone": anyText, "stp": anyText, "delay": anyText, "macTableManager": anyText,
			"forwardDelay": anyText}}, // of old documents; libvirt's delay
		"dns": {once: true, ignoreUnknown: true, attrs: map[string]attrKind{"enable": yesNo}},
		"ip":  libvirtIP,
		"route": {attrs: map[string]attrKind{
			"family": anyText, "address": anyText, "netmask": anyText, "prefix": number,
			"gateway": anyText, "metric": positive}},
	},
}

var libvirtForward = &element{
	once:  true,
	attrs: map[string]attrKind{"mode": anyText, "dev": anyText, "managed": anyText},
	children: map[string]*element{
		"nat":       natElement,
		"interface": {attrs: map[string]attrKind{"dev": anyText, "connections": anyText}},
		"driver":    {once: true, attrs: map[string]attrKind{"name": anyText, "model": anyText}},
		"pf":        {once: true, attrs: map[string]attrKind{"dev": anyText}},
		"address": {attrs: map[string]attrKind{
			"type": anyText, "domain": anyText, "bus": anyText, "slot": anyText, "function": anyText,
			"multifunction": anyText, "connections": anyText}},
	},
}

var natElement = &element{
	once:  true,
	attrs: map[string]attrKind{"ipv6": yesNo},
	children: map[string]*element{
		"address": {attrs: map[string]attrKind{"start": anyText, "end": anyText}},
		"port":    {once: true, attrs: map[string]attrKind{"start": positive, "end": positive}},
	},
}

var libvirtIP = &element{
	attrs: map[string]attrKind{
		"family": anyText, "address": anyText, "netmask": anyText, "prefix": positive, "localPtr": yesNo},
	children: map[string]*element{
		"tftp": {once: true, attrs: map[string]attrKind{"root": anyText}},
		// Only whether <dhcp> exists matters, not its content: ranges, hosts and
		// leases are dnsmasq's.
		"dhcp": {once: true, children: map[string]*element{
			"range": ignored, "host": ignored, "bootp": ignored, "lease": ignored, "option": ignored,
		}},
	},
}

// ignored is an element that does not concern a firewall, whatever it contains.
var ignored = &element{ignoreUnknown: true}

// ownNetwork is the schema of our element in <metadata>, equal to
// docs/network-metadata.rng.
var ownNetwork = &element{
	children: map[string]*element{
		"forward": {
			once:  true,
			attrs: map[string]attrKind{"mode": anyText},
			children: map[string]*element{
				"nat":       natElement,
				"interface": {attrs: map[string]attrKind{"dev": anyText}},
			},
		},
		"nat": {once: true, children: map[string]*element{
			"address": {attrs: map[string]attrKind{"start": anyText, "end": anyText}},
		}},
		"route": {attrs: map[string]attrKind{"address": anyText, "prefix": positive}},
		"serve": {once: true, attrs: map[string]attrKind{"dhcp": yesNo, "dns": yesNo, "tftp": yesNo}},
	},
}
