<?php
header('X-Made-By: index');
http_response_code(isset($_GET['code']) ? (int) $_GET['code'] : 200);
switch ($_GET['do'] ?? '') {
    case 'push':
        echo pogo_queue_push('echo', $_POST['payload'] ?? file_get_contents('php://input'));
        break;
    case 'limit': // the time limit of a page ends a call that waits
        set_time_limit(1);
        register_shutdown_function(static function (): void { echo error_get_last()['message'] ?? 'no error'; });
        echo pogo_queue('never answered');
        break;
    case 'handle':
        try {
            frankenphp_handle_request(static fn () => null);
        } catch (RuntimeException $e) {
            echo $e->getMessage();
        }
        break;
    case 'fake': // a page is no worker, whatever it says
        $_SERVER['POGO_WORKER'] = $_SERVER['POGO_SLOT'] = '0';
        try {
            frankenphp_handle_request(static fn () => null);
        } catch (RuntimeException $e) {
            echo $e->getMessage();
        }
        break;
    case 'streams':
        echo defined('STDERR') ? 'defined' : 'not defined';
        break;
    case 'bench':
        $n = (int) $_GET['n'];
        $payload = str_repeat('x', 220);
        $begun = hrtime(true);
        for ($i = 0; $i < $n; $i++) {
            pogo_queue_push('q', $payload);
        }
        echo (hrtime(true) - $begun) / $n;
        break;
    default:
        echo json_encode(array_intersect_key($_SERVER, array_flip(['SCRIPT_NAME', 'PATH_INFO', 'REQUEST_URI', 'QUERY_STRING',
            'REQUEST_METHOD', 'HTTP_FOO_BAR', 'HTTP_PROXY', 'HTTP_X_REAL', 'POGO_WORKER'])), JSON_UNESCAPED_SLASHES);
}
