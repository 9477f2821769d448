'use strict';

// ---- Logic: functions of their arguments alone. What can be wrong is here, and is tested without a document. ----

/** Seconds that a rate looks back: long enough to be calm, short enough to follow. */
const RATE_SECONDS = 3;
/** Seconds that the verdict and the quantiles look back. */
const VERDICT_SECONDS = 10;
/** How old a status object may be to be compared with: the verdict's window and some to spare; and how many are kept. */
const SAMPLES_SECONDS = VERDICT_SECONDS + 2.5, SAMPLES_MAX = 16;
/** A sparkline: five minutes, a point a second. Where more than so many seconds lie between two, nothing is known of them. */
const HISTORY_SECONDS = 300, HISTORY_MAX = 301, GAP_SECONDS = 7;
/** No data for this long, of a stream that brings some every second: it is lost. */
const STALE_MS = 4000;

/** From here on unanswered SYNs, or bad cookies, are an attack; fewer are weather. Per second. */
const ATTACK_RATE = 100;
/** Segments of no connection that are an attack, per second. A restart of a busy peer brings some hundred at once. */
const JUNK_RATE = 1000;
/** A lost SYN costs its user a second, so one packet in a hundred is felt. As PortcullisPacketRingDropping has it. */
const LOSS_SHARE = 0.01;
/** Handshakes that take longer than a second. As PortcullisHandshakesSlow has it. */
const SLOW_SHARE = 0.1;
/** Of anything that harms, more than this is no accident: one in ten seconds is. Per second, as the alerts have it. */
const HARM_RATE = 0.1;
/** The share of finished handshakes that find the accept queue full from which on it is harm, as the alerts have it. */
const OVERFLOW_SHARE = 0.01;
/** Handshakes that a share must rest on. */
const SHARE_COUNT_MIN = 20;
/** Handshakes per second before the attack that a fall is measured by, and points that their mean must rest on. */
const BASE_RATE_MIN = 2, BASE_POINTS_MIN = 20;

/**
 * Clients who are turned away, though no list and no share of a prefix wants it so: where that is counted, and how it is said. The alert
 * PortcullisClientsRefused has the same reasons, all but `other`, of which the log must say what it is.
 */
const REFUSED = [
  ['refused', 'connection_limit', 'connections/s are closed at once, for all places are taken'],
  ['refused', 'rate_limit', 'connections/s are reset at once: more come than limits.new_per_second allows'],
  ['handshakes_refused', 'no_descriptors', 'finished handshakes/s are refused, for there are no file descriptors'],
  ['handshakes_refused', 'no_memory', 'finished handshakes/s are refused, for there is no memory'],
  ['handshakes_refused', 'other', 'finished handshakes/s are refused; the log says why'],
];

/** What is dropped in the ordinary way of things, or by intent. */
const ORDINARY_DROPS = ['kernel_owns', 'not_guarded', 'not_our_frame', 'not_for_us', 'draining', 'denied', 'no_room'];

const sum = object => Object.values(object || {}).reduce((total, count) => total + count, 0);

/**
 * Adds a status to those before. Another process counts anew, so nothing before it is kept; nor is what was before a pause, for a tab that
 * was hidden for an hour would tell of that hour as if it were now.
 */
function remember(samples, status) {
  const last = samples.at(-1);
  const same = last && last.pid === status.pid && last.clock_seconds < status.clock_seconds;
  const young = same ? samples.filter(one => status.clock_seconds - one.clock_seconds <= SAMPLES_SECONDS) : [];
  return young.concat([status]).slice(-SAMPLES_MAX);
}

/** One listener now and some seconds ago: the youngest look that is old enough, else the oldest there is. */
function lookBack(samples, name, seconds) {
  const find = status => status.listeners.find(listener => listener.name === name);
  const looks = samples.filter(find), now = looks.at(-1);
  const old = looks.filter(status => now.clock_seconds - status.clock_seconds >= seconds - 0.5);
  const then = old.at(-1) || looks[0];
  return { now: find(now), then: find(then), seconds: now.clock_seconds - then.clock_seconds };
}

/** A count's rate per second; null while there is only one look, or where a count began anew. */
function rate(back, count) {
  if (!(back.seconds > 0)) return null;
  const more = count(back.now) - count(back.then);
  return more >= 0 ? more / back.seconds : null;
}

/** A rate that is compared with HARM_RATE: over a window that is shorter than the verdict's, one event must not be many a second. */
const harmRate = (back, count) => {
  const per = rate(back, count);
  return per === null ? 0 : per * back.seconds / Math.max(back.seconds, VERDICT_SECONDS);
};

/** What each part of a histogram has grown by; null as for a rate. */
function growth(back) {
  if (!(back.seconds > 0)) return null;
  const before = back.then.handshake_seconds.counts;
  const counts = back.now.handshake_seconds.counts.map((count, i) => count - before[i]);
  return counts.every(count => count >= 0) ? counts : null;
}

/**
 * The value below which the share q of a histogram's counts lies, by straight lines within buckets, as Prometheus does it.
 * In the first bucket only `below` is known, in the last only `above`. null: nothing was counted.
 */
function quantile(bounds, counts, q) {
  const rank = q * sum(counts);
  if (!counts || rank === 0) return null;
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (below + counts[i] >= rank && counts[i] > 0) {
      if (i === 0) return { below: bounds[0] };
      return { seconds: bounds[i - 1] + (bounds[i] - bounds[i - 1]) * (rank - below) / counts[i] };
    }
    below += counts[i];
  }
  return { above: bounds.at(-1) };
}

/** A step of the clock in cookies, by which handshakes are timed of which nothing is kept, in seconds. */
const COOKIE_CLOCK_SECONDS = 0.0084;

/** The time in which this share of the handshakes since a look completed. null: it is not measured, or there were none. */
function handshakeTime(back, share) {
  const grown = unmeasured(back.now) ? null : growth(back);
  const time = grown && quantile(back.now.handshake_seconds.bounds, grown, share);
  const byCookie = time && back.now.handshakes.cookie > back.then.handshakes.cookie;
  const unseen = byCookie && asSeconds(time) < COOKIE_CLOCK_SECONDS;
  return unseen ? { below: COOKIE_CLOCK_SECONDS } : time;
}

/** A quantile as a number to draw: the nearest that is known of it. */
const asSeconds = quantile => quantile && (quantile.seconds ?? quantile.below ?? quantile.above);

/** A rate with three digits or so, as `portcullis top` writes it: 7.2, 312, 48.1k. What is not nothing is never written as if it were. */
function compact(value) {
  if (value === null || value === undefined) return '–';
  if (value > 0 && value < 0.05) return '< 0.1';
  const units = ['', 'k', 'M', 'G', 'T'];
  let unit = 0;
  for (value = Math.max(value, 0); value >= 999.5 && unit + 1 < units.length; unit++) value /= 1000;
  return value.toFixed(value < 99.95 && (unit > 0 || value % 1 !== 0) ? 1 : 0) + units[unit];
}

/** A count in full, in groups of three. */
const grouped = count => String(count).replace(/\B(?=(\d{3})+$)/g, ',');

const percent = share => `${Math.round(share * 100)} %`;

/** A time of some milliseconds or seconds, or the bound that is known of it. */
function duration(quantile) {
  if (!quantile) return '–';
  const of = seconds => seconds < 0.9995
    ? `${(seconds * 1e3).toFixed(seconds < 0.00995 ? 1 : 0).replace('.0', '')} ms` : `${seconds.toFixed(1).replace('.0', '')} s`;
  if (quantile.below !== undefined) return `< ${of(quantile.below)}`;
  return quantile.above !== undefined ? `> ${of(quantile.above)}` : of(quantile.seconds);
}

/** How long something takes, in the two largest units. */
function span(seconds) {
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  seconds = Math.max(0, Math.floor(seconds));
  const first = Math.max(0, parts.findIndex(([unit]) => seconds >= unit));
  if (seconds === 0) return '0 s';
  return parts.slice(first, first + 2).map(([unit, name]) => {
    const count = Math.floor(seconds / unit);
    seconds -= count * unit;
    return count ? `${count} ${name}` : '';
  }).filter(Boolean).join(' ');
}

/** Why it is not known how long this listener's handshakes take now; empty where it is. */
function unmeasured(listener) {
  return listener.tier === 'kernel' ? 'not measured: the kernel does the handshakes' : '';
}

/** How often a listener's connections went from one state to another; null where that is not seen. From LISTEN to itself: by a cookie. */
function flowCount(listener, from, to) {
  // The kernel tells of what it accepts alone: not of SYNs, of cookies, or of half-open connections that come to nothing.
  if (listener.tier === 'kernel' && (from === 'LISTEN' || from === 'SYN-RECEIVED' && to === 'CLOSED')) return null;
  if (from === to) return listener.cookies_sent;
  const ours = listener.tier !== 'kernel' && (from === 'LISTEN' || from === 'SYN-RECEIVED');
  if (!listener.transitions.complete && !ours) return null;
  return listener.transitions.counts.find(one => one.from === from && one.to === to)?.count ?? null;
}

/** Handshakes that completed, as far as they are seen: of the kernel's own, those that were accepted. */
const completed = l => l.tier === 'kernel' ? l.accepted : l.handshakes.queue + l.handshakes.cookie;

/** A point of a listener's sparklines: its last second. What is not seen is null. */
function pointOf(samples, f, calm) {
  const back = lookBack(samples, f.name, 1), per = count => rate(back, count), kernel = f.tier === 'kernel';
  const own = count => kernel ? null : per(count);
  return { at: samples.at(-1).clock_seconds, calm, pressure: f.mode === 'cookies', done: per(completed),
    syns: own(l => l.syns), queue: kernel ? per(completed) : per(l => l.handshakes.queue), cookie: own(l => l.handshakes.cookie),
    bad: own(l => l.cookies_bad), ring: own(l => l.ring_dropped), open: f.open, p99: asSeconds(f.p99) ?? null };
}

/** What the verdict on one listener rests on. `base` is its handshakes per second before the attack, or null. */
function facts(samples, name, base) {
  const back = lookBack(samples, name, VERDICT_SECONDS), { now } = back;
  const lastSwitch = now.switches.at(-1);
  return {
    name, base, tier: now.tier, mode: now.mode,
    since: lastSwitch?.to === now.mode ? lastSwitch.unix_seconds : null,
    counted: now.states !== null,
    ...packetFacts(back),
    ...handshakeFacts(back),
    ...placeFacts(back),
    ...serverFacts(back),
  };
}

/** What comes in, and what is lost of it. `ready`: there are two looks to compare. */
function packetFacts(back) {
  const syns = rate(back, l => l.syns), ring = rate(back, l => l.ring_dropped);
  return {
    ready: syns !== null, syns, ring,
    lossShare: ring > 0 ? ring / (ring + syns) : 0,
    bad: rate(back, l => l.cookies_bad),
    junk: rate(back, l => sum(l.dropped) - sum(ORDINARY_DROPS.map(reason => l.dropped[reason] || 0))),
    suppressed: rate(back, l => l.replies_suppressed),
  };
}

/** How many handshakes complete, and in what time. */
function handshakeFacts(back) {
  const { bounds } = back.now.handshake_seconds, measured = !unmeasured(back.now), grown = measured ? growth(back) : null;
  const slowFrom = bounds.indexOf(1) + 1;
  return {
    done: rate(back, completed), measured,
    p50: handshakeTime(back, 0.5), p99: handshakeTime(back, 0.99),
    slowShare: grown && slowFrom && sum(grown) >= SHARE_COUNT_MIN ? sum(grown.slice(slowFrom)) / sum(grown) : 0,
  };
}

/** Whether there is room for those who come, and who is turned away. */
function placeFacts(back) {
  const overflows = rate(back, l => l.accept_queue_overflows), done = rate(back, completed);
  return {
    open: back.now.open, openMax: back.now.connections_max,
    overflows,
    overflowing: harmRate(back, l => l.accept_queue_overflows) > HARM_RATE && overflows > OVERFLOW_SHARE * (overflows + done),
    refused: REFUSED.map(([of, reason, text]) => ({ text, rate: rate(back, l => l[of][reason] || 0) })),
    refusing: harmRate(back, l => sum(REFUSED.map(([of, reason]) => l[of][reason] || 0))) > HARM_RATE,
  };
}

/** The servers behind it. */
function serverFacts(back) {
  const { upstreams } = back.now, all = count => l => sum(l.upstreams.map(server => server[count]));
  const failed = rate(back, all('connect_failures'));
  return {
    servers: upstreams.length,
    serversDown: upstreams.filter(server => !server.up).length,
    connects: rate(back, all('connects')), failed,
    unserved: harmRate(back, all('connect_failures')) > HARM_RATE,
    // Checks that fail would tell of a server's return. Without them only a client's connect does, and there may be no clients.
    downForSure: failed > 0 || upstreams.some(server => server.check_failures > 0),
  };
}

/** Why this listener is under attack. Empty: it is not. */
function attackReasons(f, clock) {
  const reasons = [];
  const since = f.since ? ` since ${clock(f.since)}` : '';
  if (f.mode === 'cookies') reasons.push(`the half-open queue was about to fill: SYNs are answered with cookies alone${since}`);
  if (f.syns >= ATTACK_RATE && f.done < f.syns / 4)
    reasons.push(`${compact(f.syns)} SYN/s come in, and ${compact(f.done)}/s become a connection`);
  if (f.bad >= ATTACK_RATE) reasons.push(`${compact(f.bad)} ACK/s are refused for a cookie that is forged or too old`);
  if (f.junk - f.bad >= JUNK_RATE) reasons.push(`${compact(f.junk)} segments/s that belong to nothing are dropped`);
  // The bpf tier's ring has reports alone: a lost one costs an entry, and no client.
  if (f.tier === 'raw' && f.ring >= ATTACK_RATE) reasons.push(`${compact(f.ring)} packets/s come faster than they can be read`);
  return reasons;
}

const refusals = f => f.refused.filter(({ rate }) => rate > 0).map(({ text, rate }) => `${compact(rate)} ${text}`);
const allDown = f => f.servers > 0 && f.serversDown === f.servers;
const allServers = ({ servers }) => servers === 1 ? 'the server behind it is'
  : servers === 2 ? 'both servers behind it are' : `all ${servers} servers behind it are`;

/** How users of this listener come to harm. Empty: they do not, as far as can be seen from here. */
function harmReasons(f, attacked) {
  const reasons = [];
  if (f.tier === 'raw' && f.lossShare > LOSS_SHARE)
    reasons.push(`${percent(f.lossShare)} of the packets are lost unread: a user whose SYN is among them waits a second or more`);
  if (f.overflowing)
    reasons.push(`the accept queue is full: ${compact(f.overflows)} finished handshakes/s have to wait for the application`);
  if (f.refusing) reasons.push(...refusals(f));
  if (f.openMax > 0 && f.open >= f.openMax && f.refused[0].rate === 0)
    reasons.push(`all ${grouped(f.openMax)} places are taken: newcomers wait`);
  if (allDown(f) && f.downForSure) reasons.push(`${allServers(f)} down`);
  else if (f.unserved && f.failed >= f.connects) reasons.push('every connect to the servers behind it fails');
  if (f.slowShare > SLOW_SHARE) reasons.push(`${percent(f.slowShare)} of the handshakes take longer than a second`);
  if (attacked && f.base >= BASE_RATE_MIN && f.done < f.base / 2)
    reasons.push(`${compact(f.done)} handshakes/s complete; ${compact(f.base)}/s were usual before the attack`);
  return reasons;
}

/** What is worth knowing and changes no verdict. */
function notes(f) {
  const notes = [];
  if (allDown(f)) {
    if (!f.downForSure) notes.push(`${allServers(f)} marked down since connects failed; none was tried lately`);
  } else if (f.serversDown > 0) notes.push(`${f.serversDown} of ${f.servers} servers behind it ${f.serversDown === 1 ? 'is' : 'are'} down`);
  if (f.failed > 0 && f.failed < f.connects) notes.push(`${compact(f.failed)} connects/s to a server behind it fail, and others succeed`);
  if (f.overflows > 0 && !f.overflowing) notes.push(`the accept queue was full for ${compact(f.overflows)} finished handshakes/s`);
  if (!f.refusing) notes.push(...refusals(f));
  if (f.tier === 'raw' && f.ring > 0 && f.lossShare <= LOSS_SHARE) notes.push(`${compact(f.ring)} packets/s are lost unread`);
  if (f.suppressed > 0) notes.push(`${compact(f.suppressed)} replies/s are held back: a prefix asks for more than its budget`);
  if (!f.counted) notes.push('the kernel’s sockets could not be counted: the states below are missing');
  return notes;
}

/**
 * Who gets in during an attack, and how that is said: `users` where at least half of the usual handshakes complete, `none`, or `some`,
 * which is all that can be said where the usual is not known, or is too little for a share to be taken of it.
 */
function entryOf(f) {
  const done = `${compact(f.done)} handshakes/s complete${within(f)}`;
  if (!(f.done > 0)) return { who: 'none' };
  if (f.base === null)
    return { who: 'some', text: `${done}. What is usual is not known, for this page has not seen enough calm` };
  return f.done < f.base / 2
    ? { who: 'some', text: `${done}. Usual are ${compact(f.base)}/s: too few to tell` } : { who: 'users', text: done };
}

/** Reasons of one level at one listener. */
const reasonsOf = (level, f, texts) => texts.map(text => ({ level, name: f.name, text }));

/** What is found of one listener: its level, the reasons, and who gets in, which is null where there is no attack. */
function finding(f, clock) {
  const attack = attackReasons(f, clock), harm = harmReasons(f, attack.length > 0), entry = attack.length ? entryOf(f) : null;
  const told = entry && !harm.length && entry.who !== 'none' ? [entry.text] : [];
  const reasons = [
    ...reasonsOf('harm', f, harm),
    ...reasonsOf('attack', f, attack),
    ...reasonsOf(entry?.who === 'users' ? 'calm' : 'note', f, told),
    ...reasonsOf('note', f, notes(f)),
  ];
  return { name: f.name, level: harm.length ? 'harm' : entry ? 'attack' : f.tier === 'kernel' ? 'blind' : 'calm', reasons, entry };
}

/** What is said of listeners that nothing is wrong with: first of those we watch, then of the kernel's own. */
function quietReasons(watched, kernels) {
  const blind = 'the kernel answers SYNs here, and counts them elsewhere: a flood shows in its counters. What is seen on this page are '
    + 'the connections in each state, those in SYN-RECEIVED among them, and what becomes of the accepted ones';
  return [
    ...watched.flatMap(f => reasonsOf('calm', f, [`${compact(f.syns)} SYN/s, ${compact(f.done)} handshakes/s${within(f)}`])),
    ...kernels.flatMap(f => reasonsOf('note', f, [blind])),
  ];
}

/** The level and the title of the whole. `entries`: who gets in at each listener that is under attack. */
function headline(draining, harmed, entries, watched) {
  if (draining) return ['drain', 'Draining: no new connections are taken'];
  if (harmed) return ['harm', entries.length ? 'Under attack: users are losing' : 'No attack, but users are losing'];
  if (!entries.length) return watched.length ? ['calm', 'Calm'] : ['blind', 'Datapath kernel: a flood would not be seen here'];
  const all = who => entries.every(entry => entry.who === who);
  if (all('users')) return ['attack', 'Under attack: users get in'];
  if (all('none')) return ['attack', 'Under attack: no users seen'];
  return ['attack', 'Under attack: some get in'];
}

/**
 * The verdict over all listeners of which there are two looks: { level, title, reasons: [{ level, name, text }], levels: { name: level } }.
 * Levels: wait (too early to tell), calm, blind (the kernel answers SYNs, and we do not see them), drain, attack, harm.
 */
function verdict(all, draining, clock) {
  const ready = all.filter(f => f.ready);
  if (!ready.length) return { level: 'wait', title: 'Looking …', reasons: [], levels: {} };
  const watched = ready.filter(f => f.tier !== 'kernel'), kernels = ready.filter(f => f.tier === 'kernel');
  const findings = ready.map(f => finding(f, clock)), reasons = findings.flatMap(one => one.reasons);
  const entries = findings.map(one => one.entry).filter(Boolean), harmed = findings.some(one => one.level === 'harm');
  if (!entries.length && !harmed) reasons.push(...quietReasons(watched, kernels));
  const [level, title] = headline(draining, harmed, entries, watched);
  return { level, title, reasons, levels: Object.fromEntries(findings.map(one => [one.name, one.level])) };
}

/** What is said when nothing comes from the server any more, by the last status that came, or none. */
function loss(status, clock) {
  const then = status && `No word from the server since ${clock(status.unix_seconds)}: the numbers below are of then`;
  const [title, level, text, hint] = status && status.draining
    ? ['The process has ended', 'drain', then, 'It was draining. This page goes on with the next process']
    : ['Connection lost', 'lost', then || 'The server does not answer',
      'This page keeps trying. Is the process running, and the admin address reachable?'];
  return { level, title, reasons: [{ level: level === 'lost' ? 'harm' : 'note', text }, { level: 'note', text: hint }] };
}

/** How long a listener's handshakes take, as a part of a sentence. */
function within(f) {
  if (!f.measured && f.done > 0) return '; how long they take is not measured';
  if (!f.p50) return '';
  const [half, most] = [f.p50, f.p99].map(quantile => quantile.above
    ? `more than ${duration({ seconds: quantile.above })}` : `within ${duration(quantile).replace('< ', '')}`);
  return half === most ? `; 99 of 100 of them ${most}` : `; half of them ${half}, 99 of 100 ${most}`;
}

/** Adds a point to a sparkline's, and to what is known of calm times. `at`: its time, in seconds. */
function extend(points, point) {
  return points.filter(one => point.at - one.at <= HISTORY_SECONDS).concat([point]).slice(-HISTORY_MAX);
}

/** Handshakes per second in calm times, or null where too few were seen. */
function baseRate(points) {
  const calm = points.filter(point => point.calm && point.done !== null).map(point => point.done);
  return calm.length >= BASE_POINTS_MIN ? sum(calm) / calm.length : null;
}

/** Where a sparkline's points stand in a box of this width, by their time: the newest at the right edge. */
const sparkXs = (points, width) => points.map(({ at }) => width - (points.at(-1).at - at) * width / sparkSeconds(points));

/** Seconds that a sparkline is wide: a minute at least. */
const sparkSeconds = points => Math.max(60, ...points.slice(0, 1).map(first => points.at(-1).at - first.at));

/** A sparkline's path in a box of this size; a gap where there is no value, or no point for a while. */
function sparkPath(points, key, max, width, height) {
  const xs = sparkXs(points, width), y = value => height - (max > 0 ? value / max : 0) * height;
  let path = '', last = null;
  points.forEach(({ at, [key]: value }, i) => {
    if (value === null) { last = null; return; }
    path += `${last !== null && at - last <= GAP_SECONDS ? 'L' : 'M'}${xs[i].toFixed(1)} ${y(value).toFixed(1)}`;
    last = at;
  });
  return path;
}

/** The parts of a sparkline in which cookies alone were sent, as a path: from each such point to the next, unless there is a gap. */
function shadePath(points, width, height) {
  const xs = sparkXs(points, width);
  return points.map(({ at, pressure }, i) => pressure && i > 0 && at - points[i - 1].at <= GAP_SECONDS
    ? `M${xs[i - 1].toFixed(1)} 0H${xs[i].toFixed(1)}V${height}H${xs[i - 1].toFixed(1)}z` : '').join('');
}

/** An arrow's width by its flow: a line's at none, six times that at 100,000 a second. */
const arrowWidth = flow => flow > 0 ? Math.min(1.5 + Math.log10(1 + flow) * 1.2, 7.5) : 1.5;
