// ---- Tiles: a number, what belongs to it, and its last five minutes. ----

const CHART_WIDTH = 300, CHART_HEIGHT = 34;

/**
 * What the tiles show, and how: `lines` of the chart, each the name of a point's value and the line's tint; `format` of the greatest of
 * them, else a rate's; and what fills the tile.
 */
const TILES = [
  { title: 'SYNs', lines: [['syns', '']], fill: (tile, { back }) =>
    fillOwn(tile, back, 'portcullis_syns_received_total', l => l.syns,
      `${perSecond(rate(back, l => l.cookies_sent))} by cookie alone`) },
  { title: 'Handshakes completed', lines: [['queue', ''], ['cookie', 'second']], fill: fillHandshakes },
  { title: 'Handshake time, p99', lines: [['p99', '']], format: seconds => duration({ seconds }), fill: fillTime },
  { title: 'Bad cookies', lines: [['bad', 'bad']], fill: (tile, { back }) =>
    fillOwn(tile, back, 'portcullis_syncookies_invalid_total', l => l.cookies_bad,
      `${perSecond(rate(back, l => l.cookies_valid))} valid`) },
  { title: 'Lost unread', lines: [['ring', 'bad']], fill: (tile, { back }) =>
    fillOwn(tile, back, 'portcullis_ring_dropped_packets_total', l => l.ring_dropped,
      back.now.tier === 'bpf' ? 'reports: costs no client' : 'packets, as the ring was full', 'nothing is read here') },
  { title: 'Open connections', lines: [['open', '']], format: compact, fill: fillOpen },
];

/** Makes the tiles, and gives a function that brings them up to date. */
function tiles() {
  const made = TILES.map(kind => ({ ...makeTile(kind), fill: kind.fill }));
  return looks => made.forEach(tile => {
    tile.fill(tile, looks);
    tile.draw(looks.points);
  });
}

/** An empty tile: the places of its number and of what stands below it, and what draws its chart. */
function makeTile({ title, lines, format = perSecond }) {
  const number = element('p', { class: 'big' }), below = element('p', { class: 'sub' }), chart = makeChart(lines, format);
  $('tiles').append(element('div', { class: 'tile' }, element('h3', {}, title), number, below, chart.root, chart.scale));
  return { number, below, draw: chart.draw };
}

/** Lines over time, the times of pressure shaded, and below them how long they are and the greatest value. */
function makeChart(lines, format) {
  const shade = svg('path', { class: 'pressure' }), length = element('span'), most = element('span');
  const paths = lines.map(([, tint]) => svg('path', { class: `spark ${tint}` }));
  const root = svg('svg', { viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    shade, svg('path', { class: 'ground', d: `M0 ${CHART_HEIGHT}H${CHART_WIDTH}` }), ...paths);
  const draw = points => {
    const max = Math.max(0, ...lines.flatMap(([key]) => points.map(point => point[key])));
    paths.forEach((path, i) => path.setAttribute('d', sparkPath(points, lines[i][0], max, CHART_WIDTH, CHART_HEIGHT)));
    root.classList.toggle('idle', max === 0);
    shade.setAttribute('d', shadePath(points, CHART_WIDTH, CHART_HEIGHT));
    setText(length, span(Math.round(sparkSeconds(points))));
    setText(most, max > 0 ? `most ${format(max)}` : '');
  };
  return { root, scale: element('div', { class: 'scale', 'aria-hidden': 'true' }, length, most), draw };
}

// -- What fills a tile: a number with its unit, and what stands below it. --

function fill({ number, below }, value, unit, ...parts) {
  number.replaceChildren(compact(value), element('small', {}, ` ${unit}`));
  below.replaceChildren(...parts);
}

/** Fills it with the rate of a count. */
function fillRate(tile, back, metric, count, ...parts) {
  fill(tile, rate(back, count), 'per second', ...parts);
  tell(tile.number, count(back.now), metric, { listener: back.now.name });
}

/** The same, of what is our own to count: where the kernel does the handshakes, it is not known. */
function fillOwn(tile, back, metric, count, text, unseen = 'the kernel’s, not seen here') {
  if (back.now.tier !== 'kernel') return fillRate(tile, back, metric, count, text);
  tile.number.replaceChildren('?');
  tile.below.replaceChildren(unseen);
}

function fillHandshakes(tile, { back }) {
  if (back.now.tier === 'kernel')
    return fillRate(tile, back, 'portcullis_connections_accepted_total', completed, 'accepted from the kernel');
  const of = (via, end) => [element('span', { class: `key ${via}` }, via), ` ${compact(rate(back, l => l.handshakes[via]))}${end}`];
  fillRate(tile, back, 'portcullis_handshakes_completed_total', completed, ...of('queue', ' · '), ...of('cookie', ''));
}

function fillTime({ number, below }, { back, verdictBack }) {
  const unknown = unmeasured(back.now);
  setText(number, unknown ? '?' : duration(handshakeTime(verdictBack, 0.99)));
  setText(below, unknown || `p50 ${duration(handshakeTime(verdictBack, 0.5))}`);
}

function fillOpen(tile, { back }) {
  const { open, connections_max: max } = back.now, bytes = count => `${compact(rate(back, l => l.traffic[count]))}B/s`;
  fill(tile, open, max === null ? 'no limit' : `of ${compact(max)}`, `${bytes('received_bytes')} in · ${bytes('sent_bytes')} out`);
}
