package config

import "errors"

// adminTokens takes who has a token of the admin endpoint.
func adminTokens(to *[]AdminToken) field {
	get := func() any {
		if len(*to) == 0 {
			return ""
		}
		list := make([]map[string]string, 0, len(*to))
		for _, t := range *to {
			list = append(list, map[string]string{"name": t.Name, "role": t.Role, "hash": t.Hash})
		}
		return list
	}
	return field{"list of tables", get, func(d *decoder, key string, v *value) error {
		if v.kind != kindTables && (v.kind != kindArray || !allTables(v)) {
			return d.wrong(key, v, `a list of tables: write [[admin.tokens]] with name, role and hash, as "pogod admin token" prints it`)
		}
		list := make([]AdminToken, 0, len(v.items))
		for _, item := range v.items {
			var t AdminToken
			known := fields{"name": text(&t.Name, CheckName), "role": text(&t.Role, tokenRole), "hash": text(&t.Hash, checkHash)}
			if err := d.table(key, item, known); err != nil {
				return err
			}
			if t.Name == "" || t.Role == "" || t.Hash == "" {
				return d.refuse(key, item, errors.New(`must have "name", "role" and "hash" of each, as "pogod admin token" prints them`))
			}
			list = append(list, t)
			if err := checkTokens(list); err != nil {
				return d.refuse(key, item, err)
			}
		}
		*to = list
		return nil
	}}
}
