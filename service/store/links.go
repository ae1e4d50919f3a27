package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
)

// linkRecord says which interface a network's bridge is. The name comes with
// it, since a file's name may be shortened.
type linkRecord struct {
	Network string
	Index   int
}

const linksFolder folder = "links"

// SaveLink keeps the index of the network's link until reboot; 0 keeps none.
// One file each: what it costs does not grow with the number of networks.
func (s *Store) SaveLink(network string, index int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(linksFolder, fileName(network)+".json")
	if index == 0 {
		return ignoreMissing(s.cfg.disk.Remove(path))
	}
	data, err := json.Marshal(linkRecord{network, index})
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
func (s *Store) Links() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	links := map[string]int{}
	files, _ := listFolder(s.path(linksFolder, ""))
	for _, file := range files {
		var r linkRecord
		data, _, err := readFile(s.path(linksFolder, file), 4096)
		if err == nil && json.Unmarshal(data, &r) == nil && fileName(r.Network)+".json" == file && r.Index > 0 {
			links[r.Network] = r.Index
		}
	}
	return links
}
