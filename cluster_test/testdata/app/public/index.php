<?php
// The page of the end-to-end tests: it calls the functions that a request names, one after the other in one script, and
// answers with what each returned.
declare(strict_types=1);

header('Content-Type: application/json');
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/pid') {
    echo getmypid();

    return;
}
if ($path === '/signatures') {
    $all = [];
    foreach (get_extension_funcs('pogo') as $name) {
        $f = new ReflectionFunction($name);
        $parameters = array_map(static fn (ReflectionParameter $p): string => $p->getType() . ' $' . $p->getName()
            . ($p->isDefaultValueAvailable() ? ' = ' . ($p->getDefaultValue() === null ? 'null' : var_export($p->getDefaultValue(), true)) : ''), $f->getParameters());
        $all[] = $name . '(' . implode(', ', $parameters) . '): ' . $f->getReturnType();
    }
    echo json_encode($all, JSON_UNESCAPED_SLASHES);

    return;
}
if ($path === '/auth') { // as a framework lets a user into a private channel; nobody is let into one that is called so
    if ($_POST['channel_name'] === 'private-forbidden') {
        http_response_code(403);
        exit('{}');
    }
    $secret = $_POST['channel_name'] === 'private-wrong' ? 'another' : 'app secret';
    $auth = 'app-key:' . hash_hmac('sha256', $_POST['socket_id'] . ':' . $_POST['channel_name'], $secret);
    exit(json_encode(['auth' => $auth, 'channel_data' => '{"user_id":"1"}'])); // the latter is for presence channels
}
if ($path !== '/call') {
    echo json_encode(['page' => $path]);

    return;
}

// An argument that JSON cannot carry comes as {"base64": "..."}, a large one as {"bytes": n}.
$argument = static fn (mixed $a): mixed => match (true) {
    isset($a['base64']) => base64_decode($a['base64']),
    isset($a['bytes']) => str_repeat('x', $a['bytes']),
    default => $a,
};

$replies = [];
foreach (json_decode(file_get_contents('php://input'), true, 512, JSON_THROW_ON_ERROR) as $call) {
    $f = array_shift($call);
    $arguments = array_map($argument, $call);
    try {
        $replies[] = ['result' => $f(...$arguments)];
    } catch (Throwable $e) {
        $replies[] = ['error' => $e::class . ': ' . $e->getMessage()];
    }
}
echo json_encode($replies, JSON_THROW_ON_ERROR);
