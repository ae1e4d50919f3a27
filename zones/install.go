package zones

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// undoTimeout limits the undo of a failed change, which must run also when the
// caller has gone.
const undoTimeout = 90 * time.Second

// Install puts those of our zones and policies that firewalld lacks into its
// permanent configuration, and reloads it once if there were any. It returns
// the names of what came into force, none if nothing was missing. What somebody
// else installed under such a name stays as it is.
//
// The reload drops runtime changes. If there are any, Install returns
// ErrRuntimeChanges, unless force is set; bindings of the managed interfaces,
// which the caller puts back, and those that firewalld restores do not count. A
// call that fails changed nothing.
func (c *Client) Install(ctx context.Context, force bool, managed []string) ([]string, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	have, err := c.readInstalled(ctx)
	if err != nil {
		return nil, fmt.Errorf("installing zones: %w", err)
	}
	objects, err := c.permanentObjects(ctx)
	if err != nil {
		return nil, fmt.Errorf("installing zones: %w", err)
	}
	missing, toLoad, err := c.missing(ctx, have, objects)
	if err != nil {
		return nil, fmt.Errorf("installing zones: %w", err)
	}
	if len(toLoad) == 0 {
		return nil, nil
	}
	if !force {
		if err := c.refuseRuntimeChanges(ctx, objects, managed); err != nil {
			return nil, fmt.Errorf("installing zones: %w", err)
		}
	}
	if err := c.addAndReload(ctx, missing); err != nil {
		return nil, fmt.Errorf("installing zones: %w", err)
	}
	return c.loaded(ctx, toLoad), nil
}

// loaded returns those names that are in force now: not, for example, a file of
// somebody else's that firewalld cannot read.
func (c *Client) loaded(ctx context.Context, names []string) []string {
	have, err := c.readInstalled(ctx)
	if err != nil {
		// firewalld has reloaded: the call succeeded even if firewalld is gone since.
		return names
	}
	inForce := slices.Concat(have.Zones, have.Policies)
	absent := missingFrom(inForce, names)
	if len(absent) > 0 {
		c.log.Warn("firewalld did not load zones or policies that are in its configuration, see its log", "names", absent)
	}
	installed := missingFrom(absent, names)
	c.log.Info("installed firewalld zones and policies, and reloaded firewalld", "names", installed)
	return installed
}

// missing returns the definitions that the permanent configuration lacks.
// toLoad are the names that a reload brings into force: theirs, and those of what
// is permanent but was not loaded yet.
func (c *Client) missing(ctx context.Context, have Installed, objects []permanent) (missing []definition, toLoad []string, err error) {
	defs, err := definitions()
	if err != nil {
		return nil, nil, err
	}
	withPolicies, err := c.hasPolicies(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range defs {
		inForce := slices.Contains(have.Zones, d.name)
		if d.kind == policyKind {
			if !withPolicies {
				continue
			}
			inForce = slices.Contains(have.Policies, d.name)
		}
		stored := c.stored(d, objects)
		if !stored {
			missing = append(missing, d)
		}
		if !stored || !inForce {
			toLoad = append(toLoad, d.name)
		}
	}
	return missing, toLoad, nil
}

// stored reports whether the permanent configuration has a zone or policy of
// that name. It checks the files as well: firewalld takes up to 5 s to notice a
// new one, and would overwrite it in the meantime.
func (c *Client) stored(d definition, objects []permanent) bool {
	if slices.ContainsFunc(objects, func(p permanent) bool { return p.kind == d.kind && p.name == d.name }) {
		return true
	}
	for _, dir := range []string{"/etc/firewalld", "/usr/lib/firewalld"} {
		if _, err := os.Lstat(filepath.Join(c.root, dir, d.kind.folder(), d.name+".xml")); err == nil {
			return true
		}
	}
	return false
}

func (c *Client) hasPolicies(ctx context.Context) (bool, error) {
	var names []string
	err := c.call(ctx, configPath, configInterface+".getPolicyNames", nil, &names)
	if isUnknownMethod(err) {
		return false, nil
	}
	return err == nil, wrap("listing permanent policies", err)
}

func (c *Client) refuseRuntimeChanges(ctx context.Context, objects []permanent, managed []string) error {
	changes, err := c.runtimeChanges(ctx, objects, managed)
	if err != nil {
		return err
	}
	if len(changes) > 0 {
		return ErrRuntimeChanges{Changes: changes}
	}
	return nil
}

func (c *Client) addAndReload(ctx context.Context, missing []definition) error {
	var added []permanent
	for _, d := range missing {
		path, err := c.add(ctx, d.kind, d.name, d.variants())
		if err != nil {
			// The last one may have been added although no answer came.
			return c.undoInstall(ctx, append(added, permanent{kind: d.kind, name: d.name}), err)
		}
		added = append(added, permanent{kind: d.kind, name: d.name, path: path})
	}
	if err := c.reloadFirewalld(ctx); err != nil {
		return c.undoInstall(ctx, added, err)
	}
	return nil
}

// reloadFirewalld does what firewall-cmd --reload does. Established connections
// survive it; they would not survive a complete reload.
func (c *Client) reloadFirewalld(ctx context.Context) error {
	defer c.forget()
	err := c.callFor(ctx, c.reload, rootPath, rootInterface+".reload", nil)
	return wrap("reloading firewalld", err)
}

// undoInstall removes what a failed installation added, and returns the cause,
// joined with the errors of the removal.
func (c *Client) undoInstall(ctx context.Context, added []permanent, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	objects, err := c.permanentObjects(ctx)
	if err != nil {
		return errors.Join(cause, fmt.Errorf("taking the added zones back: %w", err))
	}
	errs := []error{cause}
	// Order: policies before zones, since the policies name them.
	for _, a := range slices.Backward(added) {
		i := slices.IndexFunc(objects, func(p permanent) bool {
			return p.kind == a.kind && p.name == a.name && !p.builtin && isMarked(p.raw)
		})
		if i >= 0 {
			errs = append(errs, c.remove(ctx, objects[i]))
		}
	}
	have, err := c.readInstalled(ctx)
	for _, a := range added {
		if err == nil && slices.Contains(slices.Concat(have.Zones, have.Policies), a.name) {
			// firewalld did reload, although no answer came.
			err = c.reloadFirewalld(ctx)
			break
		}
	}
	return errors.Join(append(errs, err)...)
}

func isMarked(raw map[string]dbus.Variant) bool {
	version, _ := raw["version"].Value().(string)
	return version == provenance
}
