<?php
// Counts the pages of a session.
session_save_path(getenv('E2E_RECORD'));
session_start();
$seen = $_SESSION['count'] ?? 0;
usleep(2000); // a second page of this session must wait
$_SESSION['count'] = $seen + 1;
$_SESSION['name'] ??= $_GET['name'];
echo $_SESSION['name'], ' ', $_SESSION['count'];
