<?php
// A worker script that PHP cannot read.
while (frankenphp_handle_request(static function (string $message): void {
