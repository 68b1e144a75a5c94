package sigv4

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestCanonicalPath(t *testing.T) {
	for raw, want := range map[string]string{
		"": "/", "/": "/", "//": "/", "/./": "/", "/..": "/", "/a/..": "/", "/a/../": "/",
		"/a//b": "/a/b", "/a/": "/a/", "/a/./b/../c/": "/a/c/", "/../../a": "/a", "a": "/a",
		"/arn%3Aaws": "/arn%253Aaws", "/a b": "/a%20b", "/ሴ": "/%E1%88%B4", "/%2e%2E/a": "/%252e%252E/a",
		"/-._~": "/-._~", "/a:b@c!$&'()*+,;=": "/a%3Ab%40c%21%24%26%27%28%29%2A%2B%2C%3B%3D", "/...": "/...",
	} {
		if got := string(new(scratch).appendPath(nil, raw)); got != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
}

func TestCanonicalQuery(t *testing.T) {
	for raw, want := range map[string]string{
		"": "", "a": "a=", "a=": "a=", "b=1&a=2": "a=2&b=1", "a=2&a=1&a": "a=&a=1&a=2", "a=b=c": "a=b%3Dc",
		"a=+": "a=%2B", "a=%2b": "a=%2B", "a=%7e": "a=~", "a=/": "a=%2F", "a=%zz&b=%": "a=%25zz&b=%25",
		"%61=1": "a=1", "&&a&": "a=", "A=1&a=1&B=1": "A=1&B=1&a=1", "ab=1&a=2&a-=3": "a=2&a-=3&ab=1",
		"X-Amz-Signature=1&a": "a=", "X-Amz-Security-Token=t": "X-Amz-Security-Token=t", "a=ሴ": "a=%E1%88%B4",
	} {
		if got := string(new(scratch).appendQuery(nil, raw, false)); got != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
	if got := string(new(scratch).appendQuery(nil, "b&X-Amz-Security-Token=t&a", true)); got != "a=&b=" {
		t.Errorf("without the token: %q", got)
	}
}

func TestFoldedHeaderValues(t *testing.T) {
	for raw, want := range map[string]string{
		"": "", "  ": "", " a ": "a", "a   b\t c": "a b c", `"a   b"`: `"a b"`, "a\r\n  b\n\tc": "a b c", "a\nx-evil:1": "a x-evil:1",
	} {
		if got := string(appendFolded(nil, raw)); got != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(exampleAuthorization, "20241031T120000Z", "", exampleQuery)
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/e,SignedHeaders=host,Signature=0", "", "Thu, 31 Oct 2024 12:00:00 GMT", "a=%zz")
	f.Add("", "", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2F20241031%2Fc%2Fd%2Faws4_request&X-Amz-Date=20241031T120000Z&X-Amz-Expires=1&X-Amz-SignedHeaders=host&X-Amz-Signature=00")
	f.Add("AWS4-HMAC-SHA256 Credential", "x", "y", "%58-Amz-Signature")
	f.Add("Bearer x", "", "", "&&=&%")
	f.Fuzz(func(t *testing.T, authorization, amzDate, date, query string) {
		h := http.Header{}
		for name, value := range map[string]string{"Authorization": authorization, "X-Amz-Date": amzDate, "Date": date} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		sig, err := Parse(h, query)
		if err != nil {
			if len(authorization) > 40 && strings.Contains(err.Error(), authorization) {
				t.Fatalf("the fault repeats the header: %s", err)
			}
			return
		}
		names := strings.Split(sig.SignedHeaders, ";")
		count := len(names)
		if !slices.IsSorted(names) || len(slices.Compact(names)) != count || strings.ContainsAny(sig.SignedHeaders, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Fatalf("signed headers %q", sig.SignedHeaders)
		}
		s := sig.Scope
		if sig.AccessKeyID == "" || s.String() != s.Date+"/"+s.Region+"/"+s.Service+"/"+s.Terminator ||
			len(sig.timestamp) != len(basicTime) || sig.timestamp != sig.Time.Format(basicTime) {
			t.Fatalf("parsed %+v", sig)
		}
		if sig.Presigned != (authorization == "") && strings.Trim(authorization, " \t") != "" {
			t.Fatalf("form of %+v", sig)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	f.Add(examplePath, exampleQuery, exampleHost, "b  b")
	f.Add("//a/./../", "b&a=%2&a=+&&", "h:1", " x\r\n y ")
	f.Add("", "=", "", "")
	f.Fuzz(func(t *testing.T, path, query, host, value string) {
		s := new(scratch)
		text := string(s.render(&canonical{
			method: "GET", rawPath: path, rawQuery: query, host: host,
			header: http.Header{"X-A": {value, value}}, signedHeaders: "host;x-a", payloadHash: "-",
		}))
		lines := strings.Split(text, "\n")
		if len(lines) != 8 {
			t.Fatalf("%d lines: %q", len(lines), text)
		}
		const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%"
		if strings.Trim(lines[1], plain+"/") != "" || !strings.HasPrefix(lines[1], "/") || strings.Contains(lines[1], "//") {
			t.Fatalf("path %q became %q", path, lines[1])
		}
		if strings.Trim(lines[2], plain+"&=") != "" {
			t.Fatalf("query %q became %q", query, lines[2])
		}
		if again := string(s.appendQuery(nil, lines[2], false)); again != lines[2] {
			t.Fatalf("query %q became %q, then %q", query, lines[2], again)
		}
		if strings.ContainsAny(lines[4], "\r\t") || strings.Contains(lines[4], "  ") {
			t.Fatalf("value %q became %q", value, lines[4])
		}
	})
}
