package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// notKeys are variables that other parts of pogod read.
var notKeys = []string{"POGOD_SOCKET", "POGOD_ADMIN", "POGOD_ADMIN_CA", "POGOD_TOKEN", "POGOD_TOKEN_FILE"}

// misspelt refuses a variable of the environment that is a key's but for a letter: it was
// meant to change something. It notes, as without effect, those that name a key which has
// no variable. Every other variable is somebody else's, such as those that Kubernetes makes
// of a service that is called pogod.
func (d *decoder) misspelt(names []string) error {
	good, without := map[string]bool{}, map[string]string{}
	short := map[string][]string{} // by key, as LISTEN: its variables, which have a section
	c := defaults(true)
	for _, t := range tables(c) {
		section := strings.Trim(t.name, "[]")
		for key, f := range t.keys {
			env := variable(t.name, key, f)
			full := "POGOD_" + strings.ToUpper(section+"_"+key)
			switch {
			case env != "":
				good[env] = true
				if section != "node" {
					short[strings.ToUpper(key)] = append(short[strings.ToUpper(key)], env)
				}
			case t.name == "[node]" && key == "socket": // its would be POGOD_SOCKET
			case t.name == "[node]":
				without["POGOD_"+strings.ToUpper(key)] = t.name + " " + key
			default:
				without[full] = t.name + " " + key
			}
		}
	}
	w, p := newWorker(), newPool()
	for list, keys := range map[string]fields{"worker": workerFields(&w), "pool": poolFields(&p)} {
		for key := range keys {
			without["POGOD_"+strings.ToUpper(list+"_"+key)] = "[[" + list + "]] " + key
		}
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		rest, ours := strings.CutPrefix(name, "POGOD_")
		if value, _ := d.look(name); !ours || value == "" || good[name] || slices.Contains(notKeys, name) {
			continue
		}
		if key, ok := without[name]; ok {
			d.ignored(name, key+" is said in the file alone")
			continue
		}
		if all := short[rest]; len(all) > 0 {
			slices.Sort(all)
			d.ignored(name, "did you mean "+strings.Join(all, " or ")+"?")
			continue
		}
		if near := nearVariable(name, good); near != "" {
			return (*document)(nil).fault(span{}, "the environment's %s is no variable that pogod knows: did you mean %s?", name, near)
		}
	}
	return nil
}

// nearVariable returns the variable that a name is a letter away from, or two when it is
// long, and "" when there is none. The name of a short one that is two letters away may
// well be another's: Kubernetes has POGOD_WEB_PORT for a service "pogod-web", which is not
// POGOD_WEB_ROOT.
func nearVariable(name string, good map[string]bool) string {
	least, best := 2, ""
	if len(name) >= len("POGOD_")+10 {
		least = 3
	}
	for _, c := range slices.Sorted(maps.Keys(good)) {
		if n := distance(name, c); n < least {
			least, best = n, c
		}
	}
	return best
}

func (d *decoder) ignored(name, why string) {
	d.cfg.Inert = append(d.cfg.Inert, printable(fmt.Sprintf("the environment's %s has no effect: %s", name, why)))
}
