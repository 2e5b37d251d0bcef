<?php
// Runs the PHP that a test posts, and answers with what it returns as JSON, or with what it throws.
declare(strict_types=1);

/** What a call throws: "Class: message", or "nothing". */
function thrown(callable $f): string
{
    try {
        $f();
    } catch (Throwable $e) {
        return $e::class . ': ' . $e->getMessage();
    }
    return 'nothing';
}

header('Content-Type: application/json');
try {
    echo json_encode(eval(file_get_contents('php://input')), JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION, 4096);
} catch (Throwable $e) {
    http_response_code(500);
    echo $e::class . ': ' . $e->getMessage();
}
