<?php
// What a page is told of its client.
header('Content-Type: application/json');
$names = ['REMOTE_ADDR', 'REMOTE_PORT', 'HTTPS', 'REQUEST_SCHEME', 'SERVER_NAME', 'HTTP_HOST', 'SERVER_PORT', 'SERVER_PROTOCOL',
    'HTTP_X_FORWARDED_FOR', 'HTTP_X_FORWARDED_PROTO', 'HTTP_X_FORWARDED_HOST', 'HTTP_X_FORWARDED_PORT'];
echo json_encode(array_map(static fn (string $name): string => (string) ($_SERVER[$name] ?? '(none)'), array_combine($names, $names)), JSON_UNESCAPED_SLASHES);
