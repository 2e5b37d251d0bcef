package link

import "testing"

func TestGreeting(t *testing.T) {
	f := NewFields(AppendGreeting([]byte("before"), []PoolSize{{"default", 4}, {"cpu", 0}})[len("before"):])
	pools := NewFields(f.Bytes())
	if err := f.Done(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []PoolSize{{"default", 4}, {"cpu", 0}} {
		if got := (PoolSize{pools.String(), int(pools.Int())}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if err := pools.Done(); err != nil {
		t.Fatal(err)
	}
}

func TestResults(t *testing.T) {
	b := AppendResult(nil, 7, Returned, []byte(`{"ok":true}`))
	f := NewFields(AppendResult(b, -1, Broke, nil))
	if h, o, r := f.Int(), Outcome(f.Int()), f.String(); h != 7 || o != Returned || r != `{"ok":true}` {
		t.Error(h, o, r)
	}
	if h, o, r := f.Int(), Outcome(f.Int()), f.String(); h != -1 || o != Broke || r != "" {
		t.Error(h, o, r)
	}
	if err := f.Done(); err != nil {
		t.Error(err)
	}
}
