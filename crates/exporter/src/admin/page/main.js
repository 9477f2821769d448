// ---- The page as a whole: the stream, the listeners, and what is remembered of each. ----

const MARKS = { wait: '…', calm: '✓', blind: '?', drain: '↓', attack: '▲', harm: '✕', note: '·', lost: '✕' };

/** Status objects of one process; for each listener the points of its sparklines and its handshakes per second in calm times. */
let samples = [], history = new Map(), chosen = null, built = null, lastData = 0;

/** Takes a status object in. */
function take(status) {
  if (!samples.length || samples.at(-1).pid !== status.pid) history = new Map();
  samples = remember(samples, status);
  lastData = performance.now();
  for (const name of [...history.keys()]) if (!status.listeners.some(l => l.name === name)) history.delete(name);
  for (const { name } of status.listeners) if (!history.has(name)) history.set(name, { points: [], base: null });
  const all = factsOf(status), found = verdict(all, status.draining, clockOf);
  all.forEach(f => addPoint(history.get(f.name), f, found.level));
  render(status, found);
}

const factsOf = status => status.listeners.map(({ name }) => facts(samples, name, history.get(name).base));

/** One more point, a second's, for a listener's sparklines. */
function addPoint(track, f, level) {
  const calm = level === 'calm';
  track.points = extend(track.points, pointOf(samples, f, calm));
  // While an attack lasts, the calm before it stays the measure, however long ago it was.
  if (calm) track.base = baseRate(track.points);
}

function render(status, found) {
  renderVerdict(found, status.listeners.length > 1);
  // A line breaks between these, and not within.
  setText($('process'), [status.version, `process ${status.pid}`, `up ${span(status.uptime_seconds)}`, clockOf(status.unix_seconds)]
    .map(part => part.replaceAll(' ', '\u00a0')).join(' · '));
  if (polling) showLink('◐', 'eight others are looking: one look every 5 seconds');
  else showLink('●', 'live');
  document.body.classList.remove('lost');
  const names = status.listeners.map(l => l.name);
  if (!names.length) return;
  if (!names.includes(chosen)) chosen = names[0];
  renderListeners(names, found.levels);
  if (!built || built.name !== chosen) built = build(chosen);
  const back = lookBack(samples, chosen, RATE_SECONDS), verdictBack = lookBack(samples, chosen, VERDICT_SECONDS);
  setText($('about'), `${chosen}: ${back.now.bind.join(', ')} · datapath ${back.now.tier}`);
  const looks = { status, back, verdictBack, points: history.get(chosen).points };
  built.updates.forEach(update => update(looks));
}

const makeReason = () => element('li', {}, element('b'), element('span'));

function renderVerdict({ level, title, reasons }, several) {
  $('verdict').dataset.level = level;
  setText($('mark'), MARKS[level]);
  setText($('title'), title);
  document.title = level === 'calm' || level === 'wait' ? 'Portcullis' : `${MARKS[level]} ${title} – Portcullis`;
  keyed($('reasons'), reasons.map((reason, i) => ({ ...reason, i })), reason => reason.i, makeReason, (line, reason) => {
    line.dataset.level = reason.level;
    line.dataset.mark = MARKS[reason.level];
    setText(line.firstChild, several && reason.name ? `${reason.name}: ` : '');
    const text = reason.text;
    setText(line.lastChild, several ? text : text[0].toUpperCase() + text.slice(1));
  });
}

function renderListeners(names, levels) {
  $('listeners').hidden = names.length < 2;
  keyed($('tabs'), names, name => name, name => {
    const input = element('input', { type: 'radio', name: 'listener' });
    input.addEventListener('change', () => { chosen = name; redraw(); });
    return element('label', {}, input, element('span'));
  }, (label, name) => {
    label.firstChild.checked = name === chosen;
    setText(label.lastChild, `${MARKS[levels[name]] || ''} ${name}`);
  });
}

/**
 * Makes everything that shows one listener, and what brings each part up to date: functions of { status, back, verdictBack, points }, which
 * are the last status, looks back as far as rates and the verdict take it, and the points of the sparklines.
 */
function build(name) {
  for (const id of ['tiles', 'diagram', 'side', 'more']) $(id).replaceChildren();
  const diagram = drawDiagram(narrow.matches ? 'narrow' : 'wide'), stacks = [0, 1, 2].map(() => element('div', { class: 'stack' }));
  $('diagram').append(diagram.root);
  $('more').append(...stacks);
  const cards = [
    [halfOpenCard, $('side')], [modeCard, $('side')], [handshakeCard, $('side')],
    [cookieCard, stacks[0]], [processCard, stacks[0]], [dropCard, stacks[1]], [connectionCard, stacks[2]], [upstreamCard, $('more')],
  ];
  return { name, updates: [tiles(), looks => updateDiagram(diagram, looks), ...cards.map(([make, parent]) => make(parent))] };
}

/** Draws once more what is known. */
function redraw() {
  const status = samples.at(-1);
  if (!status) return;
  render(status, verdict(factsOf(status), status.draining, clockOf));
  if (stale()) lose();
}

// -- The stream. Open while somebody looks, and only then; a look now and then where all places at it are taken. --

/** Between two looks, and looks after which a place at the stream is tried for again. */
const POLL_MS = 5000, POLLS = 6;

/** `poll`: the timer of what is tried next. `polling`: the last answer was a look's. */
let stream = null, watch = null, poll = null, polling = false;

const stale = () => performance.now() - lastData > (polling ? 2 * POLL_MS + STALE_MS : STALE_MS);

function showLink(mark, text) {
  setText($('link-mark'), mark);
  setText($('link-text'), text);
}

function connect() {
  if (stream || document.hidden) return;
  if (!polling) {
    showLink('○', 'connecting');
    lastData = performance.now();
  }
  stream = new EventSource('/api/v1/events');
  stream.addEventListener('status', event => {
    polling = false;
    take(JSON.parse(event.data));
  });
  stream.addEventListener('error', () => {
    if (!polling) showLink('○', 'connection lost; trying again');
    // After an answer that is no stream, as 503 for one reader too many, the browser does not try again by itself.
    if (stream && stream.readyState === EventSource.CLOSED) disconnect(), look(POLLS);
  });
  watch ||= setInterval(() => { if (stale()) lose(); }, 1000);
}

/** Looks once at the status, and so many times in all, before the stream is tried again. */
async function look(times) {
  const status = await fetch('/api/v1/status').then(answer => answer.ok ? answer.json() : null).catch(() => null);
  if (stream || document.hidden) return;
  if (status) {
    polling = true;
    take(status);
  }
  // Two looks make the first rates: the second is not long in coming.
  const next = () => status && times > 1 ? look(times - 1) : connect();
  poll = setTimeout(next, samples.length > 1 ? POLL_MS : 1000);
}

function disconnect() {
  if (stream) stream.close();
  stream = null;
  clearTimeout(poll);
}

/** Says that what is shown is old, and how old. */
function lose() {
  document.body.classList.add('lost');
  const status = samples.at(-1);
  const found = loss(status, clockOf);
  showLink('✕', `${found.title.toLowerCase()}; trying again`);
  renderVerdict(found, false);
}

/** Says, of what a page that comes back shows until the first word of the server, that it is old. */
function recall() {
  const status = samples.at(-1);
  document.body.classList.add('lost');
  renderVerdict({ level: 'wait', title: 'Looking …', reasons: status
    ? [{ level: 'note', text: `The numbers below are of ${clockOf(status.unix_seconds)}` }] : [] }, false);
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) {
    if (stale()) recall();
    return connect();
  }
  disconnect();
  clearInterval(watch);
  watch = null;
});

// -- Theme and layout. --

const narrow = matchMedia('(max-width: 640px)');
narrow.addEventListener('change', () => { built = null; redraw(); });

const THEMES = ['system', 'light', 'dark'];

function applyTheme(name) {
  if (name === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  setText($('theme'), `Theme: ${name}`);
}

/** Storage may be forbidden; then the choice lasts as long as the page. */
function stored(name) {
  try { return name === undefined ? localStorage.getItem('theme') : localStorage.setItem('theme', name); } catch { return null; }
}

$('theme').addEventListener('click', () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || 'system') + 1) % THEMES.length];
  applyTheme(next);
  stored(next);
});

applyTheme(THEMES.includes(stored()) ? stored() : 'system');
connect();
