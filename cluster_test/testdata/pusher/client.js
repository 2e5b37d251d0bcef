// A client of the hub: pusher-js as a page would use it, with the commands of a test on standard input and all that
// happens on standard output, a line of JSON each.
//
//   node client.js '{"host":"127.0.0.1","port":8081,"key":"key","auth":"http://127.0.0.1:8080/auth"}'
'use strict';
const readline = require('readline');
const Pusher = require('pusher-js');

const o = JSON.parse(process.argv[2]);
const say = (what, more) => process.stdout.write(JSON.stringify({ what, ...more }) + '\n');

const pusher = new Pusher(o.key, {
  cluster: '', wsHost: o.host, wsPort: o.port, forceTLS: false, enabledTransports: ['ws'], disableStats: true,
  channelAuthorization: { endpoint: o.auth, transport: 'ajax' }, ...o.options,
});
pusher.connection.bind('state_change', ({ current }) => say('state', { state: current, id: pusher.connection.socket_id ?? '' }));
pusher.connection.bind('error', (e) => say('error', { code: e?.data?.code ?? e?.error?.data?.code ?? 0 }));
pusher.connection.bind('message', (m) => m.event === 'pusher:pong' && say('pong'));

const commands = {
  subscribe(name) {
    const channel = pusher.subscribe(name);
    channel.bind('pusher:subscription_succeeded', () => say('subscribed', { channel: name }));
    channel.bind('pusher:subscription_error', (e) => say('refused', { channel: name, code: e.status }));
    channel.bind_global((event, data) => event.startsWith('pusher:') || say('event', { channel: name, event, data }));
  },
  unsubscribe(name) {
    pusher.unsubscribe(name);
    say('unsubscribed', { channel: name });
  },
};
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [name, ...rest] = line.split(' ');
  commands[name](...rest);
}).on('close', () => process.exit(0));
