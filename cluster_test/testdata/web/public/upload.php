<?php
// What arrived of an upload.
header('Content-Type: application/json');
$file = $_FILES['file'] ?? ['error' => -1, 'size' => 0, 'tmp_name' => '', 'name' => ''];
$here = is_uploaded_file($file['tmp_name']);
echo json_encode(['title' => $_POST['title'] ?? null, 'name' => $file['name'], 'error' => $file['error'], 'size' => $file['size'],
    'sha256' => $here ? hash_file('sha256', $file['tmp_name']) : '', 'temporary' => $file['tmp_name']]);
