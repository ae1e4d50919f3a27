package neighbour

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// home is where a chain of libvirt's is entered, and what it is for.
type home struct {
	hook string
	role role
}

// homeOf knows libvirt's chains.
func homeOf(table, chain string) (home, bool) {
	switch table + " " + chain {
	case "filter LIBVIRT_INP":
		return home{"INPUT", roleInput}, true
	case "filter LIBVIRT_OUT":
		return home{"OUTPUT", roleOutput}, true
	case "filter LIBVIRT_FWX":
		return home{"FORWARD", roleCross}, true
	case "filter LIBVIRT_FWI":
		return home{"FORWARD", roleTo}, true
	case "filter LIBVIRT_FWO":
		return home{"FORWARD", roleFrom}, true
	case "nat LIBVIRT_PRT":
		return home{"POSTROUTING", roleNAT}, true
	case "mangle LIBVIRT_PRT":
		return home{"POSTROUTING", roleMangle}, true
	}
	return home{}, false
}

// finding is what was found of libvirt's in one place.
type finding struct {
	where    string
	networks map[string]int // rules for each network
	gone     []string       // chains and tables that go with them
	kept     []string       // rules for our bridges that libvirt did not make
	chains   bool           // chains of libvirt's are there
}

func (f *finding) note(network string, rules int) {
	if f.networks == nil {
		f.networks = make(map[string]int)
	}
	f.networks[network] += rules
}

func (f *finding) rules() int {
	n := 0
	for _, k := range f.networks {
		n += k
	}
	return n
}

// saved is one table of a text that iptables-save printed.
type saved struct {
	name   string
	chains []string
	rules  []string // whole lines
}

// parseSave splits the text. Whatever is not understood is left out, and so
// stays as it is.
func parseSave(text string) []saved {
	var tables []saved
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "*"):
			tables = append(tables, saved{name: line[1:]})
		case len(tables) == 0:
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			t := &tables[len(tables)-1]
			t.chains = append(t.chains, name)
		case strings.HasPrefix(line, "-A "):
			t := &tables[len(tables)-1]
			t.rules = append(t.rules, line)
		}
	}
	return tables
}

// removal finds what libvirt left for the targets in what iptables-save
// printed, and writes what iptables-restore has to do. With chains, those of
// libvirt's that end up empty and that nobody else uses go too.
func removal(text string, t targets, chains bool) (script string, f finding) {
	var b strings.Builder
	for _, table := range parseSave(text) {
		out := table.removal(t, chains, &f)
		if out != "" {
			b.WriteString("*" + table.name + "\n" + out + "COMMIT\n")
		}
	}
	return b.String(), f
}

func (s saved) removal(t targets, chains bool, f *finding) string {
	var b strings.Builder
	inUse := make(map[string]bool)
	jumps := make(map[string]int)
	f.chains = f.chains || slices.ContainsFunc(s.chains, func(chain string) bool {
		_, libvirts := homeOf(s.name, chain)
		return libvirts
	})
	for _, line := range s.rules {
		chain, network, ok := s.judge(line, t, f)
		if ok {
			f.note(network, 1)
			b.WriteString("-D" + line[len("-A"):] + "\n")
			continue
		}
		if target, ok := s.hookJump(line); ok {
			jumps[target]++
			continue
		}
		inUse[chain] = true
		if _, rest, _ := strings.Cut(line, chain); strings.Contains(rest, "LIBVIRT_") {
			for _, word := range words(rest) {
				inUse[word] = true // as a target, or whatever else it may be
			}
		}
	}
	if !chains {
		return b.String()
	}
	for _, chain := range s.chains {
		h, ok := homeOf(s.name, chain)
		if !ok || inUse[chain] {
			continue
		}
		b.WriteString(strings.Repeat("-D "+h.hook+" -j "+chain+"\n", jumps[chain]) + "-X " + chain + "\n")
		f.gone = append(f.gone, s.name+" "+chain)
	}
	return b.String()
}

// judge tells whether libvirt made a rule for one of the targets.
func (s saved) judge(line string, t targets, f *finding) (chain, network string, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return "", "", false
	}
	chain = fields[1]
	h, ok := homeOf(s.name, chain)
	if !ok {
		return chain, "", false
	}
	r, ok := parseSpec(line, fields[2:])
	if ok {
		network, ok = t.owner(r, h.role)
	}
	if !ok && t.concerns(fields[2:]...) {
		f.kept = append(f.kept, s.name+": "+line)
	}
	return chain, network, ok
}

// hookJump recognises libvirt's own way into one of its chains.
func (s saved) hookJump(line string) (chain string, ok bool) {
	rest, chain, ok := strings.Cut(line, " -j ")
	h, known := homeOf(s.name, chain)
	return chain, ok && known && rest == "-A "+h.hook
}

// words are all that a rule may name, also in quotes.
func words(line string) []string {
	return strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(" \t\"'\\", c) })
}

// parseSpec reads a rule of a kind that libvirt makes. Those have no quotes.
func parseSpec(line string, fields []string) (r rule, ok bool) {
	if strings.ContainsAny(line, `"'\`) {
		return r, false
	}
	w := &wordReader{rest: fields}
	for len(w.rest) > 0 && !w.bad {
		r.read(w)
	}
	return r, !w.bad && r.action != actionNone
}

type wordReader struct {
	rest []string
	bad  bool
}

func (w *wordReader) next() string {
	if len(w.rest) == 0 {
		w.bad = true
		return ""
	}
	word := w.rest[0]
	w.rest = w.rest[1:]
	return word
}

// want takes the next word, which must be one of these.
func (w *wordReader) want(these ...string) string {
	word := w.next()
	w.bad = w.bad || !slices.Contains(these, word)
	return word
}

func (w *wordReader) prefix(into *netip.Prefix) {
	p, err := netip.ParsePrefix(w.next())
	w.bad = w.bad || err != nil || into.IsValid() || p != p.Masked()
	*into = p
}

func (w *wordReader) device(into *string) {
	w.bad = w.bad || *into != ""
	*into = w.next()
}

// read reads one option with its arguments.
func (r *rule) read(w *wordReader) {
	switch w.next() {
	case "!":
		w.want("-d")
		r.notDst = true
		w.prefix(&r.dst)
	case "-s":
		w.prefix(&r.src)
	case "-d":
		w.prefix(&r.dst)
	case "-i":
		w.device(&r.in)
	case "-o":
		w.device(&r.out)
	case "-p":
		r.proto = unix.IPPROTO_UDP
		if w.want("tcp", "udp") == "tcp" {
			r.proto = unix.IPPROTO_TCP
		}
	case "-m":
		w.want("tcp", "udp", "conntrack")
	case "--dport":
		n, err := strconv.ParseUint(w.next(), 10, 16)
		w.bad = w.bad || err != nil || n == 0
		r.port = uint16(n)
	case "--ctstate":
		w.want("RELATED,ESTABLISHED", "ESTABLISHED,RELATED")
		r.replies = true
	case "-j":
		r.readTarget(w)
	default:
		w.bad = true
	}
}

// readTarget reads the target and its arguments, which end the rule.
func (r *rule) readTarget(w *wordReader) {
	target := w.next()
	switch target {
	case "ACCEPT":
		r.action = actionAccept
	case "RETURN":
		r.action = actionReturn
	case "REJECT":
		r.action = actionReject
		w.want("--reject-with")
		w.want("icmp-port-unreachable", "icmp6-port-unreachable")
	case "MASQUERADE":
		r.action = actionTranslate
		if len(w.rest) > 0 {
			w.want("--to-ports")
			w.next()
		}
	case "SNAT":
		r.action = actionTranslate
		w.want("--to-source")
		w.next()
	case "CHECKSUM":
		r.action = actionChecksum
		w.want("--checksum-fill")
	default:
		w.bad = true
	}
	w.bad = w.bad || len(w.rest) > 0
}
