// ---- Cards: each is made once for a listener, and gives a function that brings it up to date. ----

function card(parent, title, ...children) {
  const made = element('section', { class: 'card' }, element('h3', {}, title), ...children);
  parent.append(made);
  return made;
}

/** A table of counts: a reason or subject, its rate, and its total since the start. */
function countTable(first) {
  const body = element('tbody');
  const table = element(
    'table',
    {},
    element(
      'thead',
      {},
      element(
        'tr',
        {},
        element('th', { scope: 'col' }, first),
        element('th', { scope: 'col' }, 'per second'),
        element('th', { scope: 'col' }, 'since the start'),
      ),
    ),
    body,
  );
  /** Rows: { key, words, count: listener => number, metric, labels, quiet }. */
  const update = (back, rows) =>
    keyed(
      body,
      rows,
      row => row.key,
      row => {
        const made = element(
          'tr',
          row.quiet ? { class: 'quiet' } : {},
          element('th', { scope: 'row' }, row.words),
          element('td'),
          element('td'),
        );
        if (row.title) made.title = row.title;
        return made;
      },
      (line, row) => {
        const total = row.count(back.now),
          cell = line.children[2];
        setText(line.children[1], compact(rate(back, row.count)));
        setText(cell, grouped(total));
        if (row.metric) tell(cell, total, row.metric, { listener: back.now.name, ...row.labels });
      },
    );
  return { table, update };
}

/** A filled bar with its bound, and marks on the way. */
function gauge() {
  const fill = element('i'),
    bar = element('div', { class: 'gauge' }, fill),
    marks = element('div', { class: 'marks' });
  const update = (value, max, over, points) => {
    const at = of => `${max > 0 ? Math.min(100, (of / max) * 100) : 0}%`;
    fill.style.width = at(value);
    bar.classList.toggle('over', over);
    while (bar.children.length - 1 < points.length) bar.append(element('b'));
    points.forEach(([point], i) => {
      bar.children[i + 1].style.left = at(point);
    });
    while (marks.children.length < points.length) marks.append(element('span'));
    points.forEach(([point, text], i) => {
      marks.children[i].style.left = at(point);
      setText(marks.children[i], text);
    });
  };
  return { bar, marks, update };
}

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
const COOKIE_WORDS = {
  bad_mac: 'bad: wrong MAC',
  expired: 'bad: expired',
  not_expected: 'bad: none can be outstanding',
  over_budget: 'bad: prefix over its budget',
};
const REFUSED_WORDS = {
  denied: 'by a list',
  prefix_limit: 'prefix has its share',
  connection_limit: 'all places taken',
  rate_limit: 'over the rate',
};
const HANDSHAKE_REFUSED_WORDS = { no_descriptors: 'no descriptors', no_memory: 'no memory', tuple_busy: '4-tuple in use', other: 'other' };
const words = (table, reason) => table[reason] || reason.replaceAll('_', ' ');

/** Rows of a family whose parts are reasons. */
const byReason =
  (of, metric, table, prefix = '') =>
  listener =>
    Object.keys(of(listener))
      .sort()
      .map(reason => ({
        key: metric + reason,
        words: prefix + words(table, reason),
        title: reason,
        count: l => of(l)[reason] || 0,
        metric,
        labels: { reason },
      }));
const single = (text, metric, count, labels = {}) => ({ key: metric + JSON.stringify(labels), words: text, count, metric, labels });
/** Those that ever counted, the most frequent first. */
const seen = (rows, listener) => rows.filter(row => row.count(listener) > 0).sort((a, b) => b.count(listener) - a.count(listener));

function halfOpenCard(parent) {
  const { bar, marks, update } = gauge(),
    head = element('p', { class: 'line' }),
    now = element('span', { class: 'value' }),
    share = element('span', { class: 'dim' });
  head.append(now, share);
  const counts = countTable('Entries');
  const made = card(parent, 'Half-open queue', head, bar, marks, counts.table);
  const removed = byReason(l => l.half_open_removed, 'portcullis_half_open_removed_total', {
    completed: 'completed',
    timeout: 'timed out',
    reset: 'reset by the client',
  });
  const bypassed = byReason(
    l => l.half_open_bypassed,
    'portcullis_half_open_bypassed_total',
    { queue_full: 'full, or under pressure', prefix_share: 'prefix has its share' },
    'SYN without one: ',
  );
  return back => {
    const l = back.now;
    made.hidden = l.tier === 'kernel';
    if (made.hidden) return;
    setText(now, `${grouped(l.half_open)} half-open`);
    tell(now, l.half_open, 'portcullis_half_open', { listener: l.name });
    setText(share, `${Math.round((l.half_open / Math.max(1, l.half_open_max)) * 100)} % of ${grouped(l.half_open_max)}`);
    tell(share, l.half_open_max, 'portcullis_half_open_limit', { listener: l.name });
    bar.title = 'At the high mark the listener turns to cookies alone; at or below the low one it may turn back.';
    update(l.half_open, l.half_open_max, l.mode === 'cookies', [
      [l.half_open_low, `low ${grouped(l.half_open_low)}`],
      [l.half_open_high, `high ${grouped(l.half_open_high)}`],
    ]);
    [
      ['low', l.half_open_low],
      ['high', l.half_open_high],
    ].forEach(([which, mark], i) => tell(marks.children[i], mark, `portcullis_half_open_${which}_watermark`, { listener: l.name }));
    counts.update(back, [
      single('inserted', 'portcullis_half_open_inserted_total', x => x.half_open_inserted),
      ...removed(l),
      ...bypassed(l),
    ]);
  };
}

function modeCard(parent) {
  const mode = element('p', { class: 'value' }),
    list = element('tbody');
  const table = element(
    'table',
    {},
    element(
      'thead',
      {},
      element(
        'tr',
        {},
        element('th', { scope: 'col' }, 'Switched to'),
        element('th', { scope: 'col' }, 'at'),
        element('th', { scope: 'col' }, 'for'),
      ),
    ),
    list,
  );
  const none = element('p', { class: 'sub' }, 'No switch since the start.');
  card(parent, 'Mode', mode, table, none);
  const text = { queue: 'half-open queue', cookies: 'cookies alone' };
  return (back, status) => {
    const l = back.now,
      switches = l.switches.slice(-8);
    setText(
      mode,
      { queue: 'Keeps half-open entries', cookies: 'Under pressure: answers with cookies alone', kernel: 'The kernel answers SYNs' }[
        l.mode
      ] || l.mode,
    );
    if (l.tier !== 'kernel') tell(mode, l.mode === 'cookies' ? 1 : 0, 'portcullis_syncookies_active', { listener: l.name });
    table.hidden = !switches.length;
    none.hidden = !table.hidden;
    const rows = switches.map((one, i) => ({ ...one, i, until: switches[i + 1] ? switches[i + 1].unix_seconds : null })).reverse();
    keyed(
      list,
      rows,
      row => `${row.unix_seconds}.${row.to}.${row.i}`,
      row =>
        element(
          'tr',
          {},
          element('th', { scope: 'row' }, text[row.to] || row.to),
          element('td', {}, clockOf(row.unix_seconds)),
          element('td'),
        ),
      (line, row) =>
        setText(line.children[2], span((row.until ?? status.unix_seconds) - row.unix_seconds) + (row.until === null ? ' so far' : '')),
    );
  };
}

function handshakeCard(parent) {
  const counts = countTable('Handshakes'),
    bars = element('div', { class: 'bars', role: 'img' }),
    axis = element('div', { class: 'axis', 'aria-hidden': 'true' }),
    caption = element('p', { class: 'sub' });
  const made = card(parent, 'Handshakes that completed', counts.table, caption, bars, axis);
  const refused = byReason(l => l.handshakes_refused, 'portcullis_handshakes_refused_total', HANDSHAKE_REFUSED_WORDS, 'refused: ');
  return (back, status, wide) => {
    const l = back.now,
      unknown = unmeasured(l);
    made.hidden = l.tier === 'kernel';
    if (made.hidden) return;
    const grown = growth(wide),
      most = grown ? Math.max(1, ...grown) : 1;
    const via = (text, name) => single(text, 'portcullis_handshakes_completed_total', x => x.handshakes[name], { via: name });
    counts.update(back, [
      via('by a half-open entry', 'queue'),
      via('by a cookie', 'cookie'),
      single('timed', 'portcullis_handshake_duration_seconds_count', x => sum(x.handshake_seconds.counts)),
      single('had to wait: accept queue full', 'portcullis_accept_queue_overflows_total', x => x.accept_queue_overflows),
      ...refused(l),
    ]);
    const { bounds } = l.handshake_seconds;
    keyed(
      bars,
      l.handshake_seconds.counts.map((_, i) => i),
      i => i,
      () => element('i'),
      (bar, i) => {
        const count = grown ? grown[i] : 0,
          range = i < bounds.length ? `up to ${duration({ seconds: bounds[i] })}` : `over ${duration({ seconds: bounds[i - 1] })}`;
        bar.style.height = `${(count / most) * 100}%`;
        bar.title = `${range}: ${grouped(count)} in ${Math.round(wide.seconds)} s`;
      },
    );
    keyed(
      axis,
      [...bounds, null],
      bound => bound,
      () => element('span'),
      (label, bound) => setText(label, bound === null ? 'more' : bound < 1 ? `${bound * 1e3}`.replace('0.', '.') : `${bound} s`),
    );
    bars.hidden = axis.hidden = Boolean(unknown);
    setText(caption, unknown ? `How long they take is ${unknown}.` : 'How long they took, in ms; of the last 10 seconds:');
    const took = share => duration(grown && quantile(bounds, grown, share));
    bars.setAttribute(
      'aria-label',
      `Durations in the last ten seconds: half within ${took(0.5)}, 99 of 100 within ${took(0.99)}`,
    );
  };
}

function cookieCard(parent) {
  const counts = countTable('Cookies');
  const made = card(parent, 'SYN cookies', counts.table);
  const bad = byReason(l => l.cookies_invalid, 'portcullis_syncookies_invalid_total', COOKIE_WORDS);
  return back => {
    made.hidden = back.now.tier === 'kernel';
    if (!made.hidden)
      counts.update(back, [
        single('SYNs', 'portcullis_syns_received_total', l => l.syns),
        single('SYN-ACKs sent', 'portcullis_synacks_sent_total', l => l.synacks_sent),
        single('SYN-ACKs by cookie alone', 'portcullis_syncookies_sent_total', l => l.cookies_sent),
        single('valid cookies', 'portcullis_syncookies_valid_total', l => l.cookies_valid),
        ...bad(back.now),
      ]);
  };
}

function dropCard(parent) {
  const counts = countTable('Reason'),
    others = element('p', { class: 'sub' }),
    replies = countTable('Replies');
  const made = card(parent, 'Dropped without an answer', counts.table, others, replies.table);
  return back => {
    const l = back.now;
    made.hidden = l.tier === 'kernel';
    if (made.hidden) return;
    const reasons = [...new Set([...Object.keys(DROP_WORDS), ...Object.keys(l.dropped)])].map(reason => ({
      key: reason,
      words: words(DROP_WORDS, reason),
      title: reason,
      count: x => x.dropped[reason] || 0,
      metric: 'portcullis_packets_dropped_total',
      labels: { reason },
      quiet: ORDINARY_DROPS.includes(reason),
    }));
    const shown = seen(reasons, l);
    counts.update(back, [single('lost unread: the ring was full', 'portcullis_ring_dropped_packets_total', x => x.ring_dropped), ...shown]);
    const unseen = reasons.length - shown.length;
    setText(others, `${unseen} other reason${unseen === 1 ? '' : 's'}: none.`);
    others.hidden = unseen === 0;
    replies.update(back, [
      single('RSTs sent', 'portcullis_resets_sent_total', x => x.resets_sent),
      single('challenge ACKs sent', 'portcullis_challenge_acks_sent_total', x => x.challenge_acks_sent),
      single('held back: prefix over its budget', 'portcullis_replies_suppressed_total', x => x.replies_suppressed),
      single('SYNs denied by the lists', 'portcullis_syns_denied_total', x => x.syns_denied),
    ]);
  };
}

function connectionCard(parent) {
  const open = gauge(),
    queue = gauge(),
    counts = countTable('Connections'),
    openNow = element('p', { class: 'line' }),
    queueNow = element('p', { class: 'line' }),
    openMax = element('span', { class: 'dim' }),
    openCount = element('span');
  const waiting = element('span'),
    limit = element('span', { class: 'dim' });
  queueNow.append(waiting, limit);
  openNow.append(openCount, openMax);
  card(parent, 'Connections', openNow, open.bar, queueNow, queue.bar, counts.table);
  const refused = byReason(l => l.refused, 'portcullis_connections_refused_total', REFUSED_WORDS, 'refused ');
  const closed = byReason(l => l.closed, 'portcullis_connections_closed_total', {}, 'closed: ');
  return back => {
    const l = back.now;
    setText(openCount, `${grouped(l.open)} open`);
    const limited = l.connections_max !== null;
    setText(openMax, limited ? `of ${grouped(l.connections_max)}` : 'no limit');
    if (limited) tell(openMax, l.connections_max, 'portcullis_connections_limit', { listener: l.name });
    open.bar.hidden = !limited;
    open.update(l.open, l.connections_max, limited && l.open >= l.connections_max, []);
    setText(waiting, `${grouped(l.accept_queue)} in the accept queue`);
    tell(waiting, l.accept_queue, 'portcullis_accept_queue', { listener: l.name });
    setText(limit, `of ${grouped(l.accept_queue_max)}`);
    tell(limit, l.accept_queue_max, 'portcullis_accept_queue_limit', { listener: l.name });
    queue.update(l.accept_queue, l.accept_queue_max, l.accept_queue >= l.accept_queue_max, []);
    counts.update(back, [
      single('accepted', 'portcullis_connections_accepted_total', x => x.accepted),
      ...seen(refused(l), l),
      ...seen(closed(l), l),
      single('bytes received', 'portcullis_received_bytes_total', x => x.traffic.received_bytes),
      single('bytes sent', 'portcullis_sent_bytes_total', x => x.traffic.sent_bytes),
    ]);
  };
}

function upstreamCard(parent) {
  const body = element('tbody'),
    heads = ['Server', '', 'open', 'connects', 'failed', 'checks failed'];
  const columns = heads.map(head => element('th', { scope: 'col' }, head));
  const made = card(
    parent,
    'Servers behind it',
    element(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Servers behind it' },
      element('table', {}, element('thead', {}, element('tr', {}, ...columns)), body),
    ),
  );
  made.classList.add('whole');
  const shown = [
    ['connections', 'portcullis_upstream_connections'],
    ['connects', 'portcullis_upstream_connects_total'],
    ['connect_failures', 'portcullis_upstream_connect_failures_total'],
    ['check_failures', 'portcullis_upstream_check_failures_total'],
  ];
  // What went wrong last is a sentence: it has a line of its own, below the server's numbers.
  const make = ({ server, error }) =>
    error === undefined
      ? element('tr', {}, element('th', { scope: 'row' }, server.server), ...heads.slice(1).map(() => element('td')))
      : element('tr', { class: 'error' }, element('td', { colspan: heads.length }));
  return back => {
    const l = back.now;
    made.hidden = !l.upstreams.length;
    const lines = l.upstreams.flatMap(server => [{ server }, ...(server.last_error ? [{ server, error: server.last_error }] : [])]);
    keyed(
      body,
      lines,
      ({ server, error }) => `${error === undefined ? 'numbers' : 'error'} ${server.server}`,
      make,
      (line, { server, error }) => {
        if (error !== undefined) return setText(line.firstChild, `last error: ${error}`);
        const [, up, ...cells] = line.children,
          labels = { listener: l.name, server: server.server };
        setText(up, server.up ? '✓ up' : '✕ down');
        up.className = server.up ? '' : 'key bad';
        tell(up, server.up ? 1 : 0, 'portcullis_upstream_up', labels);
        shown.forEach(([key, metric], i) => {
          setText(cells[i], grouped(server[key]));
          tell(cells[i], server[key], metric, labels);
        });
      },
    );
  };
}

function processCard(parent) {
  const body = element('tbody');
  card(parent, 'Process', element('table', {}, body));
  return (_, status) => {
    const { keys, access_log: log } = status,
      rows = [
        ['version', status.version],
        ['process', status.pid],
        ['up for', span(status.uptime_seconds)],
        ['log level', status.log_level],
      ];
    rows.push([
      'master key rotations',
      keys ? grouped(keys.rotations) : 'no key: datapath kernel',
      keys && ['portcullis_key_rotations_total', keys.rotations],
    ]);
    if (keys && keys.from_unix_seconds) rows.push(['latest key since', new Date(keys.from_unix_seconds * 1000).toLocaleString('en-GB')]);
    rows.push(['access log', log ? `${grouped(log.written)} lines` : 'none', log && ['portcullis_access_log_lines_total', log.written]]);
    if (log) rows.push(['access log, lost', grouped(log.dropped), ['portcullis_access_log_dropped_total', log.dropped]]);
    keyed(
      body,
      rows,
      row => row[0],
      row => element('tr', {}, element('th', { scope: 'row' }, row[0]), element('td')),
      (line, [, text, metric]) => {
        setText(line.children[1], String(text));
        if (metric) tell(line.children[1], metric[1], metric[0], {});
      },
    );
  };
}
