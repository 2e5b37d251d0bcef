<?php
// The page that is measured, for each request or as the worker: a few bytes, or 10 KB of them made of many short ones.
$page = static function (): void {
    if (isset($_GET['rows'])) {
        echo '<table>';
        for ($i = 0, $n = (int) $_GET['rows']; $i < $n; $i++) {
            echo '<tr><td>', $i, '</td><td>row ', $i, ' of the table, for ', htmlspecialchars($_GET['name'] ?? '<nobody>'), "</td></tr>\n";
        }
        echo '</table>';
    } else {
        echo 'hello';
    }
};
if (isset($_SERVER['FRANKENPHP_WORKER'])) {
    while (frankenphp_handle_request($page)) {
    }
} else {
    ob_start();
    $page();
}
