//go:build php

package phpext

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// signatures prints the signature of each function that $functions has, with what the
// defaults are.
const signatures = `
ksort($functions);
foreach ($functions as $f) {
    $ps = [];
    foreach ($f->getParameters() as $p) {
        $ps[] = $p->getType() . ' $' . $p->getName() . ($p->isOptional() ? ' = ' . var_export($p->getDefaultValue(), true) : '');
    }
    echo $f->getName(), '(', implode(', ', $ps), '): ', $f->getReturnType(), "\n";
}`

// TestStubs compares what php/stubs says of the functions with what the extension says
// itself.
func TestStubs(t *testing.T) {
	stubs, err := filepath.Abs("../php/stubs/pogo.php")
	if err != nil {
		t.Fatal(err)
	}
	want := run(t, php(t, "", "-r", `$functions = (new ReflectionExtension('pogo'))->getFunctions();`+signatures))
	got := run(t, exec.Command(phpConfig(t, "--php-binary"), "-n", "-r", // without the extension, whose names it takes
		`require $argv[1]; $functions = []; foreach (get_defined_functions()['user'] as $f) { $functions[$f] = new ReflectionFunction($f); }`+signatures, stubs))
	if strings.Count(want, "\n") < 15 || !strings.Contains(want, "pogo_queue_push(string $queue, string $payload, int $delaySeconds = 0): string\n") {
		t.Fatalf("the extension has\n%s", want)
	}
	if got != want {
		t.Errorf("the stubs say\n%sthe extension says\n%s", got, want)
	}
}
