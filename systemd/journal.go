package systemd

import (
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

const (
	fieldPrefix = "VIRTFIREWALL_"
	identifier  = "virtfirewalld"
	messageID   = "message_id"
	// maxFieldName is journald's own limit; it drops longer fields.
	maxFieldName = 64
)

// The kinds of entry that an administrator may want to find with journalctl
// MESSAGE_ID=..., or have alerts for. They never change.
const (
	MessageRepaired        = "3c7362406c8d428db845bc58cc78b3f8"
	MessageNetworkDegraded = "862f593cfcde4b11a0f5029b01c49517"
	MessageNetworkFailed   = "493e3321267d4f089b32e6e441329817"
	MessageBackendChanged  = "83f61cc868e14d498ebcdf9cc02fd509"
)

// MessageID returns an attribute that marks a log record as one of these kinds.
func MessageID(id string) slog.Attr { return slog.String(messageID, id) }

// journalSink writes native entries: journalctl NETWORK=default finds those of
// one network.
type journalSink struct {
	send     func(message string, p journal.Priority, fields map[string]string) error
	fallback sink
}

func (s *journalSink) put(level slog.Level, message string, fields []field) error {
	entry := map[string]string{"SYSLOG_IDENTIFIER": identifier}
	for _, f := range fields {
		if f.name == messageID {
			entry["MESSAGE_ID"] = f.value
			continue
		}
		if name := fieldName(f.name); name != "" {
			entry[name] = f.value
		}
	}
	// Most people read MESSAGE only, so it contains the fields as well.
	if err := s.send(sentence(message, fields), priority(level), entry); err != nil {
		return s.fallback.put(level, message, fields)
	}
	return nil
}

// fieldName returns the journal field for an attribute. journald drops a field
// whose name has characters outside [A-Z0-9_], and go-systemd only complains.
func fieldName(attribute string) string {
	switch attribute {
	case "":
		return ""
	case "network", "bridge", "backend", "cause":
		return strings.ToUpper(attribute) // short names, since these are often searched for
	}
	name := fieldPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, attribute)
	return name[:min(len(name), maxFieldName)]
}
