// ---- The state diagram: RFC 9293 §3.3.2, Figure 5, laid by hand for wide and for narrow screens. ----

/** Each state: its label in metrics, and the middle of its box in either layout. `dim`: a server never enters it. */
const STATES = {
  'CLOSED': { label: 'close', wide: [360, 28], narrow: [170, 28] },
  'LISTEN': { label: 'listen', wide: [360, 116], narrow: [170, 112] },
  'SYN-RECEIVED': { label: 'syn_recv', wide: [118, 206], narrow: [58, 222] },
  'SYN-SENT': { label: 'syn_sent', wide: [602, 206], narrow: [282, 222], dim: true },
  'ESTABLISHED': { label: 'established', wide: [360, 306], narrow: [170, 334] },
  'FIN-WAIT-1': { label: 'fin_wait1', wide: [118, 406], narrow: [58, 444] },
  'CLOSE-WAIT': { label: 'close_wait', wide: [602, 406], narrow: [282, 444] },
  'CLOSING': { label: 'closing', wide: [360, 468], narrow: [170, 552] },
  'FIN-WAIT-2': { label: 'fin_wait2', wide: [118, 526], narrow: [58, 652] },
  'LAST-ACK': { label: 'last_ack', wide: [602, 526], narrow: [282, 600] },
  'TIME-WAIT': { label: 'time_wait', wide: [360, 590], narrow: [170, 752] },
};

/**
 * The arrows whose flow is counted: what happens on the way, the line, and where its label stands in either layout.
 * A SYN that gets a cookie alone leads back to LISTEN: nothing has changed here.
 */
const FLOWS = [
  ['LISTEN', 'LISTEN', 'SYN, cookie',
    { wide: ['M292 98C214 78 214 150 287 128', 225, 112, 'end'], narrow: ['M118 98C66 82 66 142 113 124', 72, 106, 'end'] }],
  ['LISTEN', 'SYN-RECEIVED', 'SYN', { wide: ['M300 139L186 174', 216, 146, 'end'], narrow: ['M132 136L78 187', 92, 154, 'end'] }],
  ['LISTEN', 'ESTABLISHED', 'cookie’s ACK', { wide: ['M360 140L360 268', 368, 212], narrow: ['M170 136L170 296', 176, 190] }],
  ['SYN-RECEIVED', 'ESTABLISHED', 'ACK', { wide: ['M186 232L290 282', 262, 245], narrow: ['M78 257L132 297', 116, 266] }],
  ['ESTABLISHED', 'FIN-WAIT-1', 'we close', { wide: ['M290 330L188 378', 226, 340, 'end'], narrow: ['M132 368L78 407', 94, 380, 'end'] }],
  ['ESTABLISHED', 'CLOSE-WAIT', 'client’s FIN', { wide: ['M430 330L532 378', 494, 340], narrow: ['M208 368L262 407', 246, 380] }],
  ['FIN-WAIT-1', 'FIN-WAIT-2', 'ACK', { wide: ['M84 440L84 489', 78, 464, 'end'], narrow: ['M30 480L30 615', 36, 548] }],
  ['FIN-WAIT-1', 'CLOSING', 'FIN', { wide: ['M186 426L288 454', 244, 418, 'middle'], narrow: ['M84 480L134 515', 118, 488] }],
  ['FIN-WAIT-2', 'TIME-WAIT', 'FIN', { wide: ['M186 546L288 580', 226, 576, 'end'], narrow: ['M74 689L122 727', 80, 712, 'end'] }],
  ['CLOSING', 'TIME-WAIT', 'ACK', { wide: ['M360 504L360 562', 368, 532], narrow: ['M170 589L170 725', 176, 660] }],
  ['CLOSE-WAIT', 'LAST-ACK', 'we close', { wide: ['M602 444L602 488', 610, 466], narrow: ['M282 482L282 569', 288, 524] }],
  ['LAST-ACK', 'CLOSED', 'ACK', { wide: ['M602 553L602 588', 610, 568], narrow: ['M282 627L282 731', 288, 678] }],
];

/** The ways to CLOSED by RST, timeout or abort, which stand in the box they leave. */
const RESETS = ['SYN-RECEIVED', 'ESTABLISHED', 'FIN-WAIT-1', 'FIN-WAIT-2', 'CLOSING', 'CLOSE-WAIT'];

/**
 * Arrows of Figure 5 that nobody counts: those of the beginning, the end of TIME-WAIT, and those that nobody takes here. From FIN-WAIT-1
 * to TIME-WAIT Linux goes by FIN-WAIT-2: it looks at the acknowledgment before the FIN.
 */
const UNCOUNTED = [
  { wide: 'M360 50L360 88', narrow: 'M170 50L170 84' },
  { wide: 'M430 592L556 605', narrow: 'M224 752L238 752' },
  { wide: 'M430 40L576 176', narrow: 'M224 36L276 190', never: true },
  { wide: 'M430 124L558 176', narrow: 'M208 136L262 190', never: true },
  { wide: 'M532 206L190 206', narrow: 'M232 222L114 222', never: true },
  { wide: 'M560 232L430 288', narrow: 'M262 248L208 297', never: true },
  { wide: 'M150 440C188 490 230 530 298 570', narrow: 'M62 480C106 560 114 640 138 726', never: true },
  { wide: 'M118 244L118 366', narrow: 'M58 258L58 406', never: true },
];

/** Sizes of the drawing and its boxes; `end`: the middle of the second CLOSED, at which teardown ends. */
const LAYOUTS = {
  wide: { size: [720, 628], box: [140, 46], tall: 66, end: [602, 606] },
  narrow: { size: [340, 782], box: [108, 46], tall: 64, end: [282, 752] },
};

/** Draws the diagram in this layout, and returns what changes in it: { root, states: by name, flows: by 'FROM>TO' }. */
function drawDiagram(layout) {
  const { size, end } = LAYOUTS[layout], states = {}, flows = {}, labels = [];
  const root = svg('svg', { viewBox: `0 0 ${size.join(' ')}`, class: `diagram ${layout}`, role: 'group', 'aria-labelledby': 'diagram-h' },
    drawTips());
  for (const { [layout]: way, never } of UNCOUNTED)
    root.append(drawArrow(way, never ? 'arrow never' : 'arrow', never ? 'tip-dim' : 'tip'));
  for (const [from, to, event, { [layout]: [way, x, y, anchor = 'start'] }] of FLOWS) {
    const cookie = from === 'LISTEN' && to !== 'SYN-RECEIVED';
    const arrow = drawArrow(way, cookie ? 'arrow cookie' : 'arrow', cookie ? 'tip-cookie' : 'tip');
    const text = drawText(x, y, 'flow', '', anchor);
    flows[`${from}>${to}`] = { arrow, text, cookie };
    root.append(arrow);
    labels.push(text, drawText(x, y + 12, 'event', event, anchor));
  }
  for (const state of Object.keys(STATES)) {
    const { box, count, reset } = drawState(state, layout);
    states[state] = { box, count };
    if (reset) flows[`${state}>CLOSED`] = { text: reset, prefix: '✕ ' };
    root.append(box);
  }
  root.append(svg('g', { class: 'state end' }, drawBox(...end, 84, 30), drawText(end[0], end[1] + 4, 'name', 'CLOSED')), ...labels);
  return { root, states, flows };
}

/** The tips of the arrows, which these name as their markers. */
function drawTips() {
  const tips = ['tip', 'tip-dim', 'tip-live', 'tip-cookie'].map(id => svg('marker', { id, class: id.replace('-', ' '),
    viewBox: '0 0 10 10', refX: 8, refY: 5, markerWidth: 11, markerHeight: 11, orient: 'auto', markerUnits: 'userSpaceOnUse' },
    svg('path', { d: 'M0 0.5L10 5L0 9.5z' })));
  return svg('defs', {}, ...tips);
}

const drawArrow = (way, tint, tip) => svg('path', { d: way, class: tint, 'marker-end': `url(#${tip})` });
const drawBox = (x, y, width, height) => svg('rect', { x: x - width / 2, y: y - height / 2, width, height, rx: 6 });
const drawText = (x, y, kind, text = '', anchor = 'middle') => svg('text', { x, y, class: kind, 'text-anchor': anchor }, text);

/** A state's box, with its name and the places of its count and, where connections are reset in it, of how many. */
function drawState(state, layout) {
  const { label, dim, [layout]: [x, y] } = STATES[state], { box: [width, low], tall } = LAYOUTS[layout];
  const resets = RESETS.includes(state), height = resets ? tall : low, top = y - height / 2;
  const count = drawText(x, top + 37, 'count'), reset = resets && drawText(x, top + 56, 'reset');
  const box = svg('g', { class: dim ? 'state dim' : 'state', id: `state-${label}` },
    drawBox(x, y, width, height), drawText(x, top + 16, 'name', state), count);
  if (reset) box.append(reset);
  return { box, count, reset };
}

// -- What changes in it. --

function updateDiagram({ states, flows }, { back }) {
  for (const [state, parts] of Object.entries(states)) updateState(parts, back.now, state);
  for (const [step, parts] of Object.entries(flows)) updateFlow(parts, back, ...step.split('>'));
  setText($('legend'), legend(back.now));
}

function updateState({ box, count }, { name, states }, state) {
  const number = states?.[state] ?? 0;
  if (states) show(count, grouped(number), number, 'portcullis_connections', { listener: name, state: STATES[state].label });
  else setText(count, '–');
  box.classList.toggle('busy', number > 0 && state !== 'LISTEN');
}

function updateFlow({ arrow, text, cookie, prefix = '' }, back, from, to) {
  const count = l => flowCount(l, from, to), total = count(back.now), known = total !== null;
  const flow = known ? rate(back, count) : null, listener = back.now.name;
  setText(text, prefix + (known ? perSecond(flow) : '?'));
  text.classList.toggle('unknown', !known);
  if (known && from === to) tell(text, total, 'portcullis_syncookies_sent_total', { listener });
  else if (known)
    tell(text, total, 'portcullis_state_transitions_total', { listener, from: STATES[from].label, to: STATES[to].label });
  if (arrow) updateArrow(arrow, flow, known, cookie);
}

function updateArrow(arrow, flow, known, cookie) {
  const live = flow > 0;
  arrow.classList.toggle('unknown', !known);
  arrow.classList.toggle('live', live);
  arrow.style.strokeWidth = arrowWidth(flow);
  const tip = !known ? 'tip-dim' : !live ? 'tip' : cookie ? 'tip-cookie' : 'tip-live';
  arrow.setAttribute('marker-end', `url(#${tip})`);
}

/** What has to be said of the arrows. */
function legend({ tier, transitions: { complete } }) {
  const faint = 'Faint: what a server, or Linux, never does.';
  if (tier === 'kernel') {
    const ways = complete ? '' : ', and it does not tell of its connections’ ways';
    return `The arrows marked “?” are not seen: SYNs and cookies are the kernel’s${ways}. ${faint}`;
  }
  const unseen = complete ? '' : 'The kernel does not let us see the arrows marked “?”: those behind the handshake. ';
  const dashed = 'Dashed: the way of a cookie. A SYN answered with it alone leads back to LISTEN; only its ACK makes a connection.';
  return `${unseen}${dashed} ${faint}`;
}
