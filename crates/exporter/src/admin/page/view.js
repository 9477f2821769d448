// ---- View: puts into the document what the logic found. Text goes in as text alone. ----

const $ = id => document.getElementById(id);

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Names the metric that an element shows, and its exact value: what a test, or a curious reader, compares with /metrics. */
function tell(node, value, metric, labels) {
  if (node.dataset.metric === undefined) {
    node.dataset.metric = metric;
    node.dataset.labels = JSON.stringify(labels);
  }
  node.dataset.value = value;
}

/** A list's children, one for each key, made when it comes and removed when it goes; in the order of the items. */
function keyed(parent, items, keyOf, make, update) {
  const had = new Map([...parent.children].map(child => [child.dataset.key, child]));
  items.forEach((item, i) => {
    const key = String(keyOf(item));
    let child = had.get(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    had.delete(key);
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null);
    update(child, item);
  });
  had.forEach(child => child.remove());
}

const clockOf = unix => new Date(unix * 1000).toLocaleTimeString('en-GB');

// -- Tiles: a number, what belongs to it, and its last five minutes. --

function tile(title, lines, format) {
  const big = element('p', { class: 'big' }),
    sub = element('p', { class: 'sub' }),
    top = element('span'),
    left = element('span');
  const shade = svg('path', { class: 'pressure' }),
    paths = lines.map(([, tint]) => svg('path', { class: `spark ${tint}` }));
  const chart = svg(
    'svg',
    { viewBox: '0 0 300 34', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    shade,
    svg('path', { class: 'ground', d: 'M0 34H300' }),
    ...paths,
  );
  $('tiles').append(
    element(
      'div',
      { class: 'tile' },
      element('h3', {}, title),
      big,
      sub,
      chart,
      element('div', { class: 'scale', 'aria-hidden': 'true' }, left, top),
    ),
  );
  return {
    big,
    sub,
    draw(points) {
      const max = Math.max(0, ...lines.flatMap(([key]) => points.map(point => point[key])));
      paths.forEach((path, i) => path.setAttribute('d', sparkPath(points, lines[i][0], max, 300, 34)));
      chart.classList.toggle('idle', max === 0);
      shade.setAttribute('d', shadePath(points, 300, 34));
      setText(left, span(Math.round(sparkSeconds(points))));
      setText(top, max > 0 ? `most ${format(max)}` : '');
    },
  };
}

function tiles() {
  const perSecond = value => `${compact(value)}/s`,
    time = seconds => duration({ seconds });
  const syns = tile('SYNs', [['syns', '']], perSecond),
    done = tile(
      'Handshakes completed',
      [
        ['queue', ''],
        ['cookie', 'second'],
      ],
      perSecond,
    );
  const took = tile('Handshake time, p99', [['p99', '']], time),
    bad = tile('Bad cookies', [['bad', 'bad']], perSecond);
  const lost = tile('Lost unread', [['ring', 'bad']], perSecond),
    open = tile('Open connections', [['open', '']], grouped => compact(grouped));
  /** Puts a number into a tile; of what is not seen here, count is null. */
  const shown = (one, value, unit, back, metric, count) => {
    const text = count === null ? '?' : compact(value);
    one.big.replaceChildren(text, ...(count === null ? [] : [element('small', {}, ` ${unit}`)]));
    if (metric && count) tell(one.big, count(back.now), metric, { listener: back.now.name });
  };
  const sub = (one, ...parts) => {
    one.sub.replaceChildren(...parts);
  };
  return (back, wide, points) => {
    const l = back.now,
      per = count => rate(back, count),
      kernel = l.tier === 'kernel';
    const own = (one, metric, count, ...below) => {
      shown(one, per(count), 'per second', back, metric, kernel ? null : count);
      sub(one, ...(kernel ? ['the kernel’s, not seen here'] : below));
    };
    own(syns, 'portcullis_syns_received_total', x => x.syns, `${compact(per(x => x.cookies_sent))}/s by cookie alone`);
    shown(
      done,
      per(completed),
      'per second',
      back,
      kernel ? 'portcullis_connections_accepted_total' : 'portcullis_handshakes_completed_total',
      completed,
    );
    if (kernel) sub(done, 'accepted from the kernel');
    else
      sub(
        done,
        element('span', { class: 'key queue' }, 'queue'),
        ` ${compact(per(x => x.handshakes.queue))} · `,
        element('span', { class: 'key cookie' }, 'cookie'),
        ` ${compact(per(x => x.handshakes.cookie))}`,
      );
    const unknown = unmeasured(l),
      grown = growth(wide),
      { bounds } = l.handshake_seconds,
      q = share => grown && quantile(bounds, grown, share);
    setText(took.big, unknown ? '?' : duration(q(0.99)));
    sub(took, unknown || `p50 ${duration(q(0.5))}`);
    own(bad, 'portcullis_syncookies_invalid_total', x => x.cookies_bad, `${compact(per(x => x.cookies_valid))}/s valid`);
    own(
      lost,
      'portcullis_ring_dropped_packets_total',
      x => x.ring_dropped,
      l.tier === 'bpf' ? 'reports: costs no client' : 'packets, as the ring was full',
    );
    if (kernel) sub(lost, 'nothing is read here');
    shown(open, l.open, l.connections_max === null ? 'no limit' : `of ${compact(l.connections_max)}`, back);
    sub(open, `${compact(per(x => x.traffic.received_bytes))}B/s in · ${compact(per(x => x.traffic.sent_bytes))}B/s out`);
    for (const one of [syns, done, took, bad, lost, open]) one.draw(points);
  };
}

// -- The diagram. --

function updateDiagram(parts, back) {
  const l = back.now,
    { states, transitions } = l,
    listener = l.name;
  for (const [state, text] of Object.entries(parts.counts)) {
    setText(text, states ? grouped(states[state] ?? 0) : '–');
    if (states) tell(text, states[state] ?? 0, 'portcullis_connections', { listener, state: STATES[state].label });
    parts.boxes[state].classList.toggle('busy', Boolean(states && states[state] > 0 && state !== 'LISTEN'));
  }
  for (const [step, { arrow, text, cookie, prefix = '' }] of Object.entries(parts.flows)) {
    const [from, to] = step.split('>');
    const now = flowCount(l, from, to),
      known = now !== null,
      flow = known ? rate(back, x => flowCount(x, from, to)) : null;
    setText(text, `${prefix}${known ? `${compact(flow)}/s` : '?'}`);
    text.classList.toggle('unknown', !known);
    const labels = { listener, from: STATES[from].label, to: STATES[to].label };
    if (known && from === to) tell(text, now, 'portcullis_syncookies_sent_total', { listener });
    else if (known) tell(text, now, 'portcullis_state_transitions_total', labels);
    if (!arrow) continue;
    arrow.classList.toggle('unknown', !known);
    arrow.classList.toggle('live', flow > 0);
    arrow.style.strokeWidth = arrowWidth(flow);
    arrow.setAttribute('marker-end', `url(#${!known ? 'tip-dim' : cookie && flow > 0 ? 'tip-cookie' : flow > 0 ? 'tip-live' : 'tip'})`);
  }
  const kernel = l.tier === 'kernel',
    { complete } = l.transitions;
  setText(
    $('legend'),
    [
      kernel
        ? `The arrows marked “?” are not seen: SYNs and cookies are the kernel’s${complete ? '' : ', and it does not tell of its connections’ ways'}.`
        : complete
          ? ''
          : 'The kernel does not let us see the arrows marked “?”: those behind the handshake.',
      kernel ? '' : 'Dashed: the way of a cookie. A SYN answered with it alone leads back to LISTEN; only its ACK makes a connection.',
      'Faint: what a server, or Linux, never does.',
    ]
      .filter(Boolean)
      .join(' '),
  );
}
