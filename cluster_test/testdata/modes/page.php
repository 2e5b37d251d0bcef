<?php
// The application of the tests that compare classic and worker mode: one function that answers a request, by its path.
declare(strict_types=1);

function page(): void
{
    static $served = 0;
    $served++;
    $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    $json = static function (mixed $what): void {
        header('Content-Type: application/json');
        echo json_encode($what, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRETTY_PRINT | JSON_PARTIAL_OUTPUT_ON_ERROR), "\n";
    };
    $record = getenv('E2E_RECORD');
    switch ($path) {
        case '/server':
        case '/index.php/server/':
            $server = $_SERVER;
            unset($server['REQUEST_TIME'], $server['REQUEST_TIME_FLOAT'], $server['REMOTE_PORT']);
            ksort($server);
            $json($server);
            break;
        case '/in': // all that a request brings
            $headers = getallheaders();
            ksort($headers);
            $files = array_map(static fn (array $f): array => ['tmp_name' => is_string($f['tmp_name']) ? (is_uploaded_file($f['tmp_name'])
                ? hash_file('sha256', $f['tmp_name']) : '') : array_map('md5_file', $f['tmp_name'])] + $f, $_FILES);
            $json(['method' => $_SERVER['REQUEST_METHOD'], 'get' => $_GET, 'post' => $_POST, 'cookie' => $_COOKIE, 'request' => $_REQUEST, 'files' => $files,
                'headers' => $headers, 'body' => file_get_contents('php://input'), 'length' => $_SERVER['CONTENT_LENGTH'] ?? null,
                'user' => $_SERVER['PHP_AUTH_USER'] ?? null, 'password' => $_SERVER['PHP_AUTH_PW'] ?? null, 'filter' => filter_input(INPUT_GET, 'a'),
                'age' => abs(microtime(true) - $_SERVER['REQUEST_TIME_FLOAT']) < 60]);
            break;
        case '/upload':
            $json(array_column($_FILES, 'tmp_name'));
            break;
        case '/state': // what must be as new in each request
            session_save_path($record);
            $json(['error' => error_get_last(), 'limit' => ini_get('max_execution_time'), 'status' => http_response_code(), 'headers' => headers_list(),
                'session' => $_SESSION ?? null, 'id' => session_id(), 'buffers' => ob_get_level(), 'aborted' => connection_status(), 'get' => $_GET, 'post' => $_POST,
                'cookie' => $_COOKIE, 'files' => $_FILES, 'request' => $_REQUEST, 'input' => file_get_contents('php://input'), 'user' => $_SERVER['PHP_AUTH_USER'] ?? null,
                'dirty' => $_SERVER['DIRTY'] ?? $_GET['DIRTY'] ?? null, 'type' => $_SERVER['CONTENT_TYPE'] ?? null]);
            break;
        case '/dirty': // leaves behind what it can
            http_response_code(418);
            header('X-Dirty: 1');
            setcookie('dirty', '1');
            session_save_path($record);
            session_start();
            $_SESSION['dirty'] = true;
            $_SERVER['DIRTY'] = $_GET['DIRTY'] = $_POST['DIRTY'] = $_COOKIE['DIRTY'] = $_REQUEST['DIRTY'] = '1';
            ob_start();
            ob_start(static fn (string $text): string => strtoupper($text));
            set_time_limit(7);
            ignore_user_abort(false);
            echo 'dirty';
            @trigger_error('dirty', E_USER_WARNING);
            break;
        case '/served':
            $json(['pid' => getmypid(), 'served' => $served, 'ignores' => ignore_user_abort()]);
            break;
        case '/status':
            http_response_code((int) $_GET['code']);
            echo 'status ', $_GET['code'];
            break;
        case '/line':
            header('HTTP/1.1 451 Unavailable For Legal Reasons');
            echo 'line';
            break;
        case '/headers':
            header('X-One: 1');
            header('X-One: 2');
            header('X-Two: 1');
            header('X-Two: 2', false);
            header('X-Gone: 1');
            header_remove('X-Gone');
            setcookie('a', '1');
            setcookie('b', '2', ['path' => '/', 'httponly' => true, 'samesite' => 'Lax']);
            header('Content-Type: text/plain; charset=iso-8859-1');
            header('Server: mine');
            echo 'headers';
            break;
        case '/redirect':
            header('Location: /elsewhere?x=1');
            break;
        case '/see':
            header('Location: /elsewhere', true, 303);
            exit;
        case '/empty':
            http_response_code(204);
            break;
        case '/buffered':
            ob_start(static fn (string $text): string => strtoupper($text));
            echo 'upper ';
            ob_start();
            echo 'inner ';
            $inner = ob_get_clean();
            echo strrev($inner);
            break;
        case '/flushed':
            header('X-Before: 1');
            echo 'one ';
            flush();
            @header('X-Behind: 1');
            echo headers_sent() ? 'sent ' : 'not sent ', 'two';
            break;
        case '/gzip':
            ob_start('ob_gzhandler');
            echo str_repeat('compressed ', 100);
            break;
        case '/long':
            echo str_repeat('0123456789abcdef', 20000);
            break;
        case '/early':
            header('Link: </style.css>; rel=preload');
            headers_send(103);
            echo 'early';
            break;
        case '/finish':
            echo 'finished';
            frankenphp_finish_request();
            echo ' and more';
            break;
        case '/throws':
            throw new RuntimeException('thrown');
        case '/caught':
            try {
                throw new RuntimeException('thrown');
            } catch (RuntimeException $e) {
                http_response_code(500);
                echo $e->getMessage();
            }
            break;
        case '/exit':
            http_response_code((int) ($_GET['code'] ?? 200));
            exit('exited');
        case '/exits':
            echo 'with a status';
            exit(3);
        case '/memory':
            header('X-Before: 1');
            echo 'begun';
            str_repeat('x', 1 << 30);
            break;
        case '/sent':
            echo 'sent ';
            flush();
            str_repeat('x', 1 << 30);
            break;
        case '/busy':
            set_time_limit(1);
            for (;;) {
            }
        case '/warns':
            echo $undefined;
            echo 'warned';
            break;
        case '/slow':
            file_put_contents("$record/slow" . $_GET['n'], '');
            for ($late = microtime(true) + 30; !is_file("$record/go") && microtime(true) < $late; usleep(2000)) {
                clearstatcache();
            }
            echo 'slow ', $_GET['n'];
            break;
        case '/session':
            session_save_path($record);
            session_id('s' . $_GET['name']);
            session_start();
            $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
            echo $_GET['name'], ' ', $_SESSION['count'];
            break;
        case '/aborted': // writes until its client is gone, and notes that it saw it
            ignore_user_abort($_GET['ignore'] === '1');
            for ($late = microtime(true) + 30; microtime(true) < $late && !connection_aborted(); usleep(5000)) {
                file_put_contents("$record/aborted" . $_GET['ignore'], '.', FILE_APPEND);
                echo '.';
                flush();
            }
            file_put_contents("$record/aborted" . $_GET['ignore'], 'saw it', FILE_APPEND);
            break;
        case '/reserve': // holds a job and dispatches a task, and settles neither
            $json(['job' => json_decode(pogo_queue_reserve(['held'], 10.0), true), 'task' => pogo_dispatch('Busy', [60_000_000]), 'size' => pogo_pool_size()]);
            break;
        case '/push':
            echo pogo_queue_push('held', 'x');
            break;
        default:
            echo "page $path";
    }
}
