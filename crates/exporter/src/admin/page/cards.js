// ---- Cards: each is made once for a listener, and gives a function that brings it up to date. ----

// -- What a reason, or a mode, is called. One that stands in no list has its own name, as words. --

const DROP_WORDS = {
  malformed: 'malformed',
  bad_checksum: 'wrong checksum',
  not_for_us: 'fragment or unknown header: the kernel’s',
  not_our_frame: 'another host’s frame',
  not_guarded: 'not a guarded address',
  martian: 'impossible source',
  land: 'source is destination',
  port_zero: 'port 0',
  bad_flags: 'impossible flags',
  reset: 'RST of no handshake',
  unknown_flow: 'of no known connection',
  bad_cookie: 'ACK with a bad cookie',
  kernel_owns: 'an open connection’s: the kernel’s',
  over_budget: 'prefix over its reply budget',
  draining: 'SYN while draining',
  denied: 'source denied by a list',
  no_room: 'handshake that has to wait',
};
const COOKIE_WORDS = { bad_mac: 'wrong MAC', not_expected: 'none can be outstanding', over_budget: 'prefix over its budget' };
const REFUSED_WORDS = {
  denied: 'by a list',
  prefix_limit: 'prefix has its share',
  connection_limit: 'all places taken',
  rate_limit: 'over the rate',
};
const HANDSHAKE_REFUSED_WORDS = { tuple_busy: '4-tuple in use' };
const REMOVED_WORDS = { timeout: 'timed out', reset: 'reset by the client' };
const BYPASSED_WORDS = { queue_full: 'full, or under pressure', prefix_share: 'prefix has its share' };
const MODE_WORDS = {
  queue: 'Keeps half-open entries',
  cookies: 'Under pressure: answers with cookies alone',
  kernel: 'The kernel answers SYNs',
};
const SWITCH_WORDS = { queue: 'half-open queue', cookies: 'cookies alone' };
const wordsOf = (list, reason) => list[reason] || reason.replaceAll('_', ' ');

// -- What cards are made of. --

function card(parent, title, ...children) {
  const made = element('section', { class: 'card' }, element('h3', {}, title), ...children);
  parent.append(made);
  return made;
}

/** Hides a card, and leaves it as it is, where what it shows is the kernel's. */
const unlessKernels = (made, update) => looks => {
  made.hidden = looks.back.now.tier === 'kernel';
  if (!made.hidden) update(looks);
};

/** A line with something at either end. */
const line = (...ends) => element('p', { class: 'line' }, ...ends);

/** A table with these heads, and no rows yet. */
function tableOf(...heads) {
  const body = element('tbody'), columns = heads.map(head => element('th', { scope: 'col' }, head));
  return { body, table: element('table', {}, element('thead', {}, element('tr', {}, ...columns)), body) };
}

/** A table's row: its title, and so many empty cells. */
const makeRow = (title, cells) =>
  element('tr', {}, element('th', { scope: 'row' }, title), ...Array.from({ length: cells }, () => element('td')));

/** A table of counts: what is counted, its rate, and its total since the start. `update` takes rows of countRow and reasonRow. */
function countTable(what) {
  const { table, body } = tableOf(what, 'per second', 'since the start');
  const make = ({ text, title, quiet }) => {
    const made = makeRow(text, 2);
    if (title) made.title = title;
    if (quiet) made.className = 'quiet';
    return made;
  };
  const update = (back, rows) => keyed(body, rows, row => row.key, make, ({ children: [, speed, whole] }, { count, metric, labels }) => {
    const total = count(back.now);
    setText(speed, compact(rate(back, count)));
    show(whole, grouped(total), total, metric, { listener: back.now.name, ...labels });
  });
  return { table, update };
}

const countRow = (text, metric, count, labels = {}) => ({ key: metric + JSON.stringify(labels), text, count, metric, labels });

/** The row of one reason in a family: `of` a listener, its counts by reason. */
const reasonRow = (reason, of, metric, list, prefix = '') =>
  ({ ...countRow(prefix + wordsOf(list, reason), metric, l => of(l)[reason] || 0, { reason }), title: reason });
/** The rows of a family, one for each reason. */
const reasonRows = (listener, of, ...more) => Object.keys(of(listener)).sort().map(reason => reasonRow(reason, of, ...more));
/** Those that ever counted, the most frequent first. */
const everCounted = (rows, listener) =>
  rows.filter(row => row.count(listener) > 0).sort((a, b) => b.count(listener) - a.count(listener));

/** A filled bar with its bound, and marks on the way: each of a value and what stands below it. */
function gauge() {
  const fill = element('i'), bar = element('div', { class: 'gauge' }, fill), labels = element('div', { class: 'marks' });
  const update = (value, max, over, marks) => {
    const share = of => `${max > 0 ? Math.min(100, (of / max) * 100) : 0}%`;
    fill.style.width = share(value);
    bar.classList.toggle('over', over);
    marks.forEach(([at, text], i) => {
      if (!labels.children[i]) {
        bar.append(element('b'));
        labels.append(element('span'));
      }
      bar.children[i + 1].style.left = labels.children[i].style.left = share(at);
      setText(labels.children[i], text);
    });
  };
  return { bar, labels, update };
}

// -- The cards. --

function halfOpenCard(parent) {
  const queue = gauge(), counts = countTable('Entries');
  const now = element('span', { class: 'value' }), share = element('span', { class: 'dim' });
  queue.bar.title = 'At the high mark the listener turns to cookies alone; at or below the low one it may turn back.';
  const made = card(parent, 'Half-open queue', line(now, share), queue.bar, queue.labels, counts.table);
  return unlessKernels(made, ({ back }) => {
    const { name, mode, half_open: open, half_open_max: max, half_open_low: low, half_open_high: high } = back.now;
    const labels = { listener: name };
    show(now, `${grouped(open)} half-open`, open, 'portcullis_half_open', labels);
    show(share, `${percent(open / Math.max(1, max))} of ${grouped(max)}`, max, 'portcullis_half_open_limit', labels);
    queue.update(open, max, mode === 'cookies', [[low, `low ${grouped(low)}`], [high, `high ${grouped(high)}`]]);
    const [atLow, atHigh] = queue.labels.children;
    tell(atLow, low, 'portcullis_half_open_low_watermark', labels);
    tell(atHigh, high, 'portcullis_half_open_high_watermark', labels);
    counts.update(back, [
      countRow('inserted', 'portcullis_half_open_inserted_total', l => l.half_open_inserted),
      ...reasonRows(back.now, l => l.half_open_removed, 'portcullis_half_open_removed_total', REMOVED_WORDS),
      ...reasonRows(back.now, l => l.half_open_bypassed, 'portcullis_half_open_bypassed_total', BYPASSED_WORDS, 'SYN without one: '),
    ]);
  });
}

function modeCard(parent) {
  const mode = element('p', { class: 'value' }), { table, body } = tableOf('Switched to', 'at', 'for');
  const none = element('p', { class: 'sub' }, 'No switch since the start.');
  card(parent, 'Mode', mode, table, none);
  return ({ back: { now }, status }) => {
    setText(mode, MODE_WORDS[now.mode] || now.mode);
    if (now.tier !== 'kernel') tell(mode, now.mode === 'cookies' ? 1 : 0, 'portcullis_syncookies_active', { listener: now.name });
    const switches = now.switches.slice(-8);
    table.hidden = !switches.length;
    none.hidden = !table.hidden;
    const rows = switches.map(({ to, unix_seconds: at }, i) => ({ to, at, i, until: switches[i + 1]?.unix_seconds })).reverse();
    const make = ({ to }) => makeRow(SWITCH_WORDS[to] || to, 2);
    keyed(body, rows, ({ at, to, i }) => `${at}.${to}.${i}`, make, ({ children: [, began, lasted] }, { at, until }) => {
      setText(began, clockOf(at));
      setText(lasted, until === undefined ? `${span(status.unix_seconds - at)} so far` : span(until - at));
    });
  };
}

function handshakeCard(parent) {
  const counts = countTable('Handshakes'), caption = element('p', { class: 'sub' }), { bars, axis, update } = histogram();
  const made = card(parent, 'Handshakes that completed', counts.table, caption, bars, axis);
  const via = (text, name) =>
    countRow(text, 'portcullis_handshakes_completed_total', l => l.handshakes[name], { via: name });
  return unlessKernels(made, ({ back, verdictBack }) => {
    counts.update(back, [
      via('by a half-open entry', 'queue'),
      via('by a cookie', 'cookie'),
      countRow('timed', 'portcullis_handshake_duration_seconds_count', l => sum(l.handshake_seconds.counts)),
      countRow('had to wait: accept queue full', 'portcullis_accept_queue_overflows_total', l => l.accept_queue_overflows),
      ...reasonRows(back.now, l => l.handshakes_refused, 'portcullis_handshakes_refused_total', HANDSHAKE_REFUSED_WORDS, 'refused: '),
    ]);
    const unknown = unmeasured(back.now);
    bars.hidden = axis.hidden = Boolean(unknown);
    setText(caption, unknown ? `How long they take is ${unknown}.` : 'How long they took, in ms; of the last 10 seconds:');
    update(verdictBack);
  });
}

/** How long handshakes took: a bar for each bucket, the highest for the most frequent. */
function histogram() {
  const bars = element('div', { class: 'bars', role: 'img' }), axis = element('div', { class: 'axis', 'aria-hidden': 'true' });
  const update = back => {
    const { bounds, counts } = back.now.handshake_seconds, grown = growth(back) || counts.map(() => 0), most = Math.max(1, ...grown);
    keyed(bars, [...grown.entries()], ([i]) => i, () => element('i'), (bar, [i, count]) => {
      const range = i < bounds.length ? `up to ${duration({ seconds: bounds[i] })}` : `over ${duration({ seconds: bounds[i - 1] })}`;
      bar.style.height = `${(count / most) * 100}%`;
      bar.title = `${range}: ${grouped(count)} in ${Math.round(back.seconds)} s`;
    });
    keyed(axis, [...bounds, null], bound => bound, () => element('span'), (label, bound) => setText(label, boundText(bound)));
    const [half, nearlyAll] = [0.5, 0.99].map(share => duration(handshakeTime(back, share)));
    bars.setAttribute('aria-label', `Durations in the last ten seconds: half within ${half}, 99 of 100 within ${nearlyAll}`);
  };
  return { bars, axis, update };
}

/** A bucket's bound on the axis: in ms, where it says nothing else. */
function boundText(bound) {
  if (bound === null) return 'more';
  return bound < 1 ? `${bound * 1e3}`.replace('0.', '.') : `${bound} s`;
}

function cookieCard(parent) {
  const counts = countTable('Cookies'), made = card(parent, 'SYN cookies', counts.table);
  return unlessKernels(made, ({ back }) => {
    counts.update(back, [
      countRow('SYNs', 'portcullis_syns_received_total', l => l.syns),
      countRow('SYN-ACKs sent', 'portcullis_synacks_sent_total', l => l.synacks_sent),
      countRow('SYN-ACKs by cookie alone', 'portcullis_syncookies_sent_total', l => l.cookies_sent),
      countRow('valid cookies', 'portcullis_syncookies_valid_total', l => l.cookies_valid),
      ...reasonRows(back.now, l => l.cookies_invalid, 'portcullis_syncookies_invalid_total', COOKIE_WORDS, 'bad: '),
    ]);
  });
}

function dropCard(parent) {
  const counts = countTable('Reason'), others = element('p', { class: 'sub' }), replies = countTable('Replies');
  const made = card(parent, 'Dropped without an answer', counts.table, others, replies.table);
  const dropRow = reason => ({
    ...reasonRow(reason, l => l.dropped, 'portcullis_packets_dropped_total', DROP_WORDS),
    quiet: ORDINARY_DROPS.includes(reason),
  });
  return unlessKernels(made, ({ back }) => {
    const rows = [...new Set([...Object.keys(DROP_WORDS), ...Object.keys(back.now.dropped)])].map(dropRow);
    const counted = everCounted(rows, back.now), unseen = rows.length - counted.length;
    counts.update(back, [
      countRow('lost unread: the ring was full', 'portcullis_ring_dropped_packets_total', l => l.ring_dropped),
      ...counted,
    ]);
    setText(others, `${unseen} other reason${unseen === 1 ? '' : 's'}: none.`);
    others.hidden = unseen === 0;
    replies.update(back, [
      countRow('RSTs sent', 'portcullis_resets_sent_total', l => l.resets_sent),
      countRow('challenge ACKs sent', 'portcullis_challenge_acks_sent_total', l => l.challenge_acks_sent),
      countRow('held back: prefix over its budget', 'portcullis_replies_suppressed_total', l => l.replies_suppressed),
      countRow('SYNs denied by the lists', 'portcullis_syns_denied_total', l => l.syns_denied),
    ]);
  });
}

function connectionCard(parent) {
  const places = gauge(), queue = gauge(), counts = countTable('Connections');
  const open = element('span'), openMax = element('span', { class: 'dim' });
  const waiting = element('span'), waitingMax = element('span', { class: 'dim' });
  card(parent, 'Connections', line(open, openMax), places.bar, line(waiting, waitingMax), queue.bar, counts.table);
  return ({ back }) => {
    const { now } = back, { connections_max: max, accept_queue: length, accept_queue_max: lengthMax } = now;
    const limited = max !== null, labels = { listener: now.name };
    setText(open, `${grouped(now.open)} open`);
    if (limited) show(openMax, `of ${grouped(max)}`, max, 'portcullis_connections_limit', labels);
    else setText(openMax, 'no limit');
    places.bar.hidden = !limited;
    places.update(now.open, max, limited && now.open >= max, []);
    show(waiting, `${grouped(length)} in the accept queue`, length, 'portcullis_accept_queue', labels);
    show(waitingMax, `of ${grouped(lengthMax)}`, lengthMax, 'portcullis_accept_queue_limit', labels);
    queue.update(length, lengthMax, length >= lengthMax, []);
    const refused = reasonRows(now, l => l.refused, 'portcullis_connections_refused_total', REFUSED_WORDS, 'refused ');
    const closed = reasonRows(now, l => l.closed, 'portcullis_connections_closed_total', {}, 'closed: ');
    counts.update(back, [
      countRow('accepted', 'portcullis_connections_accepted_total', l => l.accepted),
      ...everCounted(refused, now),
      ...everCounted(closed, now),
      countRow('bytes received', 'portcullis_received_bytes_total', l => l.traffic.received_bytes),
      countRow('bytes sent', 'portcullis_sent_bytes_total', l => l.traffic.sent_bytes),
    ]);
  };
}

/** A server's numbers: its key in a status, and its metric. */
const SERVER_COUNTS = [
  ['connections', 'portcullis_upstream_connections'],
  ['connects', 'portcullis_upstream_connects_total'],
  ['connect_failures', 'portcullis_upstream_connect_failures_total'],
  ['check_failures', 'portcullis_upstream_check_failures_total'],
];

function upstreamCard(parent) {
  const heads = ['Server', '', 'open', 'connects', 'failed', 'checks failed'], { table, body } = tableOf(...heads);
  const title = 'Servers behind it';
  const made = card(parent, title, element('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': title }, table));
  made.classList.add('whole');
  // What went wrong last is a sentence: it has a row of its own, below the server's numbers.
  const make = ({ server, error }) => error === undefined ? makeRow(server.server, heads.length - 1)
    : element('tr', { class: 'error' }, element('td', { colspan: heads.length }));
  return ({ back: { now } }) => {
    made.hidden = !now.upstreams.length;
    const rows = now.upstreams.flatMap(server => server.last_error ? [{ server }, { server, error: server.last_error }] : [{ server }]);
    const keyOf = ({ server, error }) => `${error === undefined ? 'numbers' : 'error'} ${server.server}`;
    keyed(body, rows, keyOf, make, (row, { server, error }) => {
      if (error === undefined) updateServer(row, server, { listener: now.name, server: server.server });
      else setText(row.firstChild, `last error: ${error}`);
    });
  };
}

function updateServer({ children: [, up, ...cells] }, server, labels) {
  show(up, server.up ? '✓ up' : '✕ down', server.up ? 1 : 0, 'portcullis_upstream_up', labels);
  up.className = server.up ? '' : 'key bad';
  SERVER_COUNTS.forEach(([key, metric], i) => show(cells[i], grouped(server[key]), server[key], metric, labels));
}

function processCard(parent) {
  const body = element('tbody');
  card(parent, 'Process', element('table', {}, body));
  return ({ status }) => keyed(body, processRows(status), ([title]) => title, ([title]) => makeRow(title, 1),
    ({ lastChild: cell }, [, text, metric, value]) => {
      setText(cell, String(text));
      if (value !== undefined) tell(cell, value, metric, {});
    });
}

/** What is known of the process: titles and texts, and, where there is one, the metric and its value. */
function processRows({ version, pid, uptime_seconds: uptime, log_level: level, keys, access_log: log }) {
  const rotations = keys ? grouped(keys.rotations) : 'no key: datapath kernel';
  return [
    ['version', version],
    ['process', pid],
    ['up for', span(uptime)],
    ['log level', level],
    ['master key rotations', rotations, 'portcullis_key_rotations_total', keys?.rotations],
    keys?.from_unix_seconds && ['latest key since', new Date(keys.from_unix_seconds * 1000).toLocaleString('en-GB')],
    ['access log', log ? `${grouped(log.written)} lines` : 'none', 'portcullis_access_log_lines_total', log?.written],
    log && ['access log, lost', grouped(log.dropped), 'portcullis_access_log_dropped_total', log.dropped],
  ].filter(Boolean);
}
