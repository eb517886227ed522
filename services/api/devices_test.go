// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestDevices(t *testing.T) {
	f := newFixture(t)
	key, beta := f.signUp("acme"), f.signUp("beta")
	const base = "/v1/tenants/acme"
	const path = base + "/devices"
	const good = `{"attributes":{"hall":"3"},"groups":["presses","line-1"]}`
	f.want(f.do("PUT", path+"/press-7?dry_run=true", key, good), 200, "")
	f.want(f.do("GET", path+"/press-7", key, ""), 404, "device_not_found")
	r := f.do("PUT", path+"/press-7", key, good)
	if v := f.want(r, 200, ""); v["name"] != "press-7" || fmt.Sprint(v["groups"], v["attributes"]) != "[line-1 presses] map[hall:3]" {
		t.Errorf("got %v", v)
	}
	tag := r.header.Get("ETag")
	f.want(f.do("PUT", path+"/press-7", key, `{"groups":["presses"]}`, "If-Match", tag), 200, "")
	f.want(f.do("PUT", path+"/press-7", key, `{}`, "If-Match", tag), 412, "revision_mismatch")
	f.want(f.do("PUT", path+"/nobody", key, `{}`, "If-Match", tag), 412, "revision_mismatch")
	if v := f.want(f.do("GET", path+"/press-7", key, ""), 200, ""); fmt.Sprint(v["groups"], v["attributes"]) != "[presses] <nil>" {
		t.Errorf("got %v", v)
	}
	for name, body := range map[string]string{
		"group":     `{"groups":["a/b"]}`,
		"twice":     `{"groups":["a","a"]}`,
		"attribute": `{"attributes":{"":"x"}}`,
		"value":     `{"attributes":{"a":"` + strings.Repeat("x", 257) + `"}}`,
		"many":      `{"groups":["` + strings.Join(strings.Split(strings.Repeat("x", 33), ""), `","`) + `"]}`,
	} {
		t.Run(name, func(t *testing.T) { f.want(f.do("PUT", path+"/x", key, body), 400, "device_invalid") })
	}
	f.want(f.do("PUT", path+"/x", key, `{"name":"y"}`), 400, "request_invalid")
	f.want(f.do("PUT", path+"/x%0A", key, `{}`), 400, "device_invalid")
	// Many at once, all or none of which are looked at first.
	items := `{"name":"press-7","groups":["presses"]},{"name":"ünï/1"},{"name":"press-9","groups":["presses","old"]}`
	f.want(f.do("POST", path+":import?dry_run=true", key, `{"items":[`+items+`]}`), 200, "")
	f.want(f.do("POST", path+":import", key, `{"items":[`+items+`,{"name":""}]}`), 400, "import_invalid")
	f.want(f.do("POST", path+":import", key, `{"items":[`+items+`,{"name":"press-7"}]}`), 400, "import_invalid")
	f.want(f.do("POST", path+":import", key, `{"items":[]}`), 400, "request_invalid")
	if v := f.want(f.do("POST", path+":import", key, `{"items":[`+items+`]}`), 200, ""); v["made"] != 2.0 || v["changed"] != 1.0 {
		t.Errorf("got %v", v)
	}
	names := func(query string) (all []string) {
		t.Helper()
		for next := ""; ; {
			v := f.want(f.do("GET", path+query+"&cursor="+next, key, ""), 200, "")
			for _, i := range v["items"].([]any) {
				all = append(all, i.(map[string]any)["name"].(string))
			}
			if v["next"] == nil {
				return all
			}
			next = v["next"].(string)
		}
	}
	if got := fmt.Sprint(names("?limit=2"), names("?limit=1&group=presses"), names("?group=none")); got != "[press-7 press-9 ünï/1] [press-7 press-9] []" {
		t.Errorf("got %s", got)
	}
	if v := f.want(f.do("GET", base+"/groups", key, ""), 200, ""); fmt.Sprint(v["items"]) != "[map[devices:1 name:old] map[devices:2 name:presses]]" || v["whole"] != true {
		t.Errorf("got %v", v)
	}
	r = f.do("GET", path+":export", key, "")
	if r.status != 200 || strings.Count(r.body, "\n") != 3 || !strings.Contains(r.body, `"name":"press-9"`) {
		t.Errorf("export: %d %s", r.status, r.body)
	}
	// Another tenant has none of them.
	f.want(f.do("GET", "/v1/tenants/beta/devices/press-7", beta, ""), 404, "device_not_found")
	// The quota counts devices.
	f.want(f.do("PUT", base+"/quotas/overrides", key, `{"devices":3}`), 200, "")
	f.want(f.do("PUT", path+"/press-9", key, `{}`), 200, "")
	for _, dry := range []string{"?dry_run=true", ""} {
		if v := f.want(f.do("PUT", path+"/one-more"+dry, key, `{}`), 409, "quota_exceeded"); v["quota"] != "devices" {
			t.Errorf("got %v", v)
		}
	}
	for _, q := range f.want(f.do("GET", base+"/quotas", key, ""), 200, "")["items"].([]any) {
		if q := q.(map[string]any); q["name"] == "devices" && q["usage"] != 3.0 {
			t.Errorf("quota %v", q)
		}
	}
	f.want(f.do("DELETE", path+"/press-9", key, "", "If-Match", tag), 412, "revision_mismatch")
	f.want(f.do("DELETE", path+"/press-9?dry_run=true", key, ""), 204, "")
	f.want(f.do("DELETE", path+"/press-9", key, ""), 204, "")
	f.want(f.do("DELETE", path+"/press-9", key, ""), 404, "device_not_found")
	f.want(f.do("PUT", path+"/one-more", key, `{}`), 200, "")
}
