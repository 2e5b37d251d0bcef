<?php
// One page that pushes jobs and shows what becomes of them. Everything it does, it does through pogod's functions.
// public/index.php calls page() for each request in classic mode, worker.php for many in worker mode.
declare(strict_types=1);

const QUEUE = 'default';

function page(): void
{
    if ($_SERVER['REQUEST_METHOD'] === 'POST') {
        // A form of another site cannot send this header.
        if (($_SERVER['HTTP_X_REQUESTED_WITH'] ?? '') === 'hello') {
            answer(change(json_decode(file_get_contents('php://input'), true) ?: []));
        } else {
            http_response_code(403);
            answer('{"ok":false,"message":"send the header X-Requested-With: hello"}');
        }
    } elseif (isset($_GET['state'])) {
        answer('{"status":' . pogo_queue_status(QUEUE) . ',"failed":' . pogo_queue_failed(QUEUE, 20) . '}');
    } else {
        document();
    }
}

function answer(string $json): void
{
    header('Content-Type: application/json');
    header('Cache-Control: no-store');
    echo $json;
}

/** Does what a button asks for. */
function change(array $in): string
{
    $job = json_encode(['kind' => $in['kind'] ?? 'now', 'name' => substr((string) ($in['name'] ?? 'world'), 0, 40)], JSON_INVALID_UTF8_SUBSTITUTE);

    return match ($in['do'] ?? '') {
        'push' => pogo_queue_push(QUEUE, $job, ($in['kind'] ?? '') === 'later' ? 5 : 0),
        'retry' => pogo_queue_retry_failed(QUEUE, (string) ($in['id'] ?? '')),
        'forget' => pogo_queue_forget_failed(QUEUE, (string) ($in['id'] ?? '')),
        'purge' => pogo_queue_purge_failed(QUEUE),
        default => '{"ok":false,"message":"unknown action"}',
    };
}

function document(): void
{
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hello, pogod</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #4f6ef7; --good: #1f9d61; --bad: #d64545; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 48rem; margin: 0 auto; padding: 3rem 1rem; }
  h1 { font-size: 2rem; margin: 0; letter-spacing: -.02em; }
  h2 { font-size: 1.2rem; margin: 0; }
  p { margin: .3rem 0; }
  .soft { opacity: .7; }
  button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: .6rem; cursor: pointer; }
  button:hover { border-color: var(--accent); background: var(--soft); }
  button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
  .pushes { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem; margin: 2rem 0 .8rem; }
  .pushes button { display: flex; flex-direction: column; padding: .7rem 1rem; text-align: left; }
  .pushes small { opacity: .75; line-height: 1.35; }
  .pushes .primary { background: var(--accent); border-color: var(--accent); color: #fff; }
  .pushes .primary small { opacity: .9; }
  .pushes .primary:hover { filter: brightness(1.08); }
  output { display: block; min-height: 2.5rem; padding: .6rem .9rem; border-radius: .6rem; background: var(--soft); font: .82rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
  output.bad { color: var(--bad); }
  .gauges { display: grid; grid-template-columns: repeat(5, 1fr); gap: 1px; margin: 1.6rem 0 2.4rem; border: 1px solid var(--line); border-radius: .8rem; overflow: hidden; background: var(--line); }
  .gauge { padding: .8rem 1rem; background: Canvas; transition: background 1.2s; }
  .gauge.moved { background: color-mix(in srgb, var(--accent) 22%, Canvas); transition: none; }
  .gauge b { display: block; font-size: 1.9rem; font-variant-numeric: tabular-nums; line-height: 1.2; }
  .gauge.acked b { color: var(--good); }
  .gauge.failed.some b { color: var(--bad); }
  @media (max-width: 34rem) { body { padding-top: 1.5rem; } .gauges { grid-template-columns: repeat(3, 1fr); } .gauge.acked { grid-column: span 2; } }
  .head { display: flex; justify-content: space-between; align-items: center; min-height: 2.2rem; margin-bottom: .4rem; }
  ul { list-style: none; margin: 0; padding: 0; }
  li { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; border-top: 1px solid var(--line); padding: .7rem 0; }
  li div { flex: 1 1 16rem; min-width: 0; overflow-wrap: anywhere; }
  li small { display: block; opacity: .7; }
  .small { padding: .25rem .8rem; font-size: .9rem; }
  .empty { border-top: 1px solid var(--line); padding: .8rem 0; }
  footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .9rem; }
  code { font-size: .9em; }
</style>

<h1>hello, pogod</h1>
<p class="soft">This page pushes jobs; a PHP worker beside it handles them. What was accepted is on the disk: kill the server now, start it again, and nothing is lost.</p>

<div class="pushes">
  <button class="primary" data-kind="now"><b>Push now</b><small>runs at once</small></button>
  <button data-kind="later"><b>In 5 seconds</b><small>waits, then runs</small></button>
  <button data-kind="slow"><b>A slow one</b><small>runs for 3 seconds</small></button>
  <button data-kind="failing"><b>One that fails</b><small>throws 3 times</small></button>
</div>
<output id="said" aria-live="polite">Push a job: the call and its answer show here.</output>

<div class="gauges" id="gauges"></div>

<div class="head"><h2>Failed jobs</h2><button class="small" id="purge" data-do="purge" hidden>Purge all</button></div>
<div id="failed"></div>

<footer class="soft">
  This page is <code>page.php</code> of the example, the worker its <code>queue-worker.php</code>: a loop that takes a job and acks it.
  In a terminal, <code>bin/pogod status</code> shows the same figures.
</footer>

<script>
// The gauges, in the order in which a job goes through them.
const shown = {delayed: 'delayed', pending: 'ready', reserved: 'running', acked: 'done', failed: 'failed'};
// What PHP calls for each action of this page.
const calls = {
  push: b => `pogo_queue_push('default', '{"kind":"${b.kind}",…}'${b.kind === 'later' ? ', 5' : ''})`,
  retry: b => `pogo_queue_retry_failed('default', '${b.id}')`,
  forget: b => `pogo_queue_forget_failed('default', '${b.id}')`,
  purge: () => `pogo_queue_purge_failed('default')`,
};
const before = {};
const $ = id => document.getElementById(id);
const element = (tag, text, props = {}) => Object.assign(document.createElement(tag), {textContent: text}, props);

function say(text, bad = false) {
  $('said').textContent = text;
  $('said').className = bad ? 'bad' : '';
}

async function send(body) {
  let text = 'no answer', ok = false;
  try {
    text = await (await fetch('', {method: 'POST', headers: {'X-Requested-With': 'hello'}, body: JSON.stringify(body)})).text();
    ok = JSON.parse(text).ok;
  } catch { /* shown as it came */ }
  say(`${calls[body.do](body)}\n→ ${text}`, !ok);
  await draw();
}

function gauges(queue) {
  for (const [key, label] of Object.entries(shown)) {
    let g = $('g-' + key);
    if (!g) {
      g = element('div', '', {id: 'g-' + key});
      g.append(element('b', ''), element('span', label, {className: 'soft'}));
      $('gauges').append(g);
    }
    g.firstChild.textContent = queue[key];
    g.className = ['gauge', key, queue[key] ? 'some' : '', key in before && before[key] !== queue[key] ? 'moved' : ''].join(' ');
    before[key] = queue[key];
  }
}

function failed(jobs) {
  $('purge').hidden = jobs.length === 0;
  if (jobs.length === 0) {
    $('failed').replaceChildren(element('p', 'None. Push one that fails, and wait for its third attempt.', {className: 'empty soft'}));
    return;
  }
  const list = element('ul', '');
  for (const job of jobs) {
    const li = element('li', ''), what = element('div', job.reason);
    what.append(element('small', `job ${job.id} · ${job.attempts} attempts · failed at ${new Date(job.failed_at).toLocaleTimeString()}`));
    li.append(what);
    for (const [action, label] of [['retry', 'Retry'], ['forget', 'Forget']]) {
      const b = element('button', label, {className: 'small', onclick: () => send({do: action, id: job.id})});
      b.dataset.do = action;
      li.append(b);
    }
    list.append(li);
  }
  $('failed').replaceChildren(list);
}

let drawn = '', lost = false;
async function draw() {
  try {
    const state = await (await fetch('?state', {signal: AbortSignal.timeout(5000)})).json();
    gauges(state.status.queues[0]);
    const jobs = JSON.stringify(state.failed);
    if (jobs !== drawn) { drawn = jobs; failed(state.failed.failed ?? []); } // buttons keep the focus while nothing changes
    if (lost) say('The server is back, and so are the jobs.');
    lost = false;
  } catch {
    lost = true;
    say('The server does not answer. Start it again: this page goes on by itself.', true);
  }
}
async function keepDrawing() {
  await draw();
  setTimeout(keepDrawing, 500);
}

for (const b of document.querySelectorAll('[data-kind]')) b.onclick = () => send({do: 'push', kind: b.dataset.kind, name: 'world'});
$('purge').onclick = () => send({do: 'purge'});
keepDrawing();
</script>
<?php
}
