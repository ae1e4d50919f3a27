package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/virtfirewalld/virtfirewalld/service/trusted"
)

// Link is the interface that a network's bridge is. It is of the bridge that the
// network was configured with: another one in its file is another interface.
type Link struct {
	Bridge string
	Index  int
}

// linkRecord says which interface a network's bridge is. The name comes with
// it, since a file's name may be shortened.
type linkRecord struct {
	Network string
	Link
}

const linksFolder folder = "links"

// SaveLink records the network's link until reboot; index 0 deletes the record. There
// is one file each, so that the cost does not grow with the number of networks.
func (s *Store) SaveLink(network string, link Link) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(linksFolder, fileName(network)+".json")
	if link.Index == 0 {
		return ignoreMissing(s.cfg.disk.Remove(path))
	}
	data, err := json.Marshal(linkRecord{network, link})
	if err != nil {
		return err
	}
	err = write(s.cfg.disk, path, data, newFileMode, false)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.cfg.disk.MkdirAll(filepath.Dir(path)); err == nil {
			err = write(s.cfg.disk, path, data, newFileMode, false)
		}
	}
	return err
}

// Links returns the links that were kept, by network. A record that cannot be
// used is none: the bridge is found by its name then.
func (s *Store) Links() map[string]Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	links := map[string]Link{}
	files, _ := listFolder(s.path(linksFolder, ""))
	for _, file := range files {
		var r linkRecord
		data, _, err := trusted.Read(s.path(linksFolder, file), 4096)
		if err == nil && json.Unmarshal(data, &r) == nil && fileName(r.Network)+".json" == file && r.Index > 0 {
			links[r.Network] = r.Link
		}
	}
	return links
}
