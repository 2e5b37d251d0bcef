<?php
// The page of the end-to-end tests in worker mode.
while (frankenphp_handle_request(static function (): void {
    require __DIR__ . '/public/index.php';
})) {
}
