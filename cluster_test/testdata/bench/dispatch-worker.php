<?php
while (frankenphp_handle_request(static fn (string $message): array => ['ok' => true, 'result' => json_decode($message, true)['args']['i']])) {
}
