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
  ['LISTEN', 'LISTEN', 'SYN, cookie', 'M292 98C214 78 214 150 287 128', [225, 112, 'end'], 'M118 98C66 82 66 142 113 124', [72, 106, 'end']],
  ['LISTEN', 'SYN-RECEIVED', 'SYN', 'M300 139L186 174', [216, 146, 'end'], 'M132 136L78 187', [92, 154, 'end']],
  ['LISTEN', 'ESTABLISHED', 'cookie’s ACK', 'M360 140L360 268', [368, 212, 'start'], 'M170 136L170 296', [176, 190, 'start']],
  ['SYN-RECEIVED', 'ESTABLISHED', 'ACK', 'M186 232L290 282', [262, 245, 'start'], 'M78 257L132 297', [116, 266, 'start']],
  ['ESTABLISHED', 'FIN-WAIT-1', 'we close', 'M290 330L188 378', [226, 340, 'end'], 'M132 368L78 407', [94, 380, 'end']],
  ['ESTABLISHED', 'CLOSE-WAIT', 'client’s FIN', 'M430 330L532 378', [494, 340, 'start'], 'M208 368L262 407', [246, 380, 'start']],
  ['FIN-WAIT-1', 'FIN-WAIT-2', 'ACK', 'M84 440L84 489', [78, 464, 'end'], 'M30 480L30 615', [36, 548, 'start']],
  ['FIN-WAIT-1', 'CLOSING', 'FIN', 'M186 426L288 454', [244, 418], 'M84 480L134 515', [118, 488, 'start']],
  ['FIN-WAIT-2', 'TIME-WAIT', 'FIN', 'M186 546L288 580', [226, 576, 'end'], 'M74 689L122 727', [80, 712, 'end']],
  ['CLOSING', 'TIME-WAIT', 'ACK', 'M360 504L360 562', [368, 532, 'start'], 'M170 589L170 725', [176, 660, 'start']],
  ['CLOSE-WAIT', 'LAST-ACK', 'we close', 'M602 444L602 488', [610, 466, 'start'], 'M282 482L282 569', [288, 524, 'start']],
  ['LAST-ACK', 'CLOSED', 'ACK', 'M602 553L602 588', [610, 568, 'start'], 'M282 627L282 731', [288, 678, 'start']],
];

/** The ways to CLOSED by RST, timeout or abort, which stand in the box they leave. */
const RESETS = ['SYN-RECEIVED', 'ESTABLISHED', 'FIN-WAIT-1', 'FIN-WAIT-2', 'CLOSING', 'CLOSE-WAIT'];

/**
 * Arrows of Figure 5 that nobody counts: those of the beginning, the end of TIME-WAIT, and those that nobody takes here. From FIN-WAIT-1
 * to TIME-WAIT Linux goes by FIN-WAIT-2: it looks at the acknowledgment before the FIN.
 */
const UNCOUNTED = [
  ['M360 50L360 88', 'M170 50L170 84'],
  ['M430 592L556 605', 'M224 752L238 752'],
  ['M430 40L576 176', 'M224 36L276 190', true],
  ['M430 124L558 176', 'M208 136L262 190', true],
  ['M532 206L190 206', 'M232 222L114 222', true],
  ['M560 232L430 288', 'M262 248L208 297', true],
  ['M150 440C188 490 230 530 298 570', 'M62 480C106 560 114 640 138 726', true],
  ['M118 244L118 366', 'M58 258L58 406', true],
];

/** Sizes of the drawing and its boxes; `end`: the middle of the second CLOSED, at which teardown ends. */
const LAYOUTS = {
  wide: { size: [720, 628], box: [140, 46], tall: 66, end: [602, 606] },
  narrow: { size: [340, 782], box: [108, 46], tall: 64, end: [282, 752] },
};

const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

/** Draws the diagram in this layout, and returns what changes in it: counts by state, arrows and labels by 'FROM>TO'. */
function drawDiagram(layout) {
  const { size, box, tall, end } = LAYOUTS[layout], wide = layout === 'wide';
  const root = svg('svg', { viewBox: `0 0 ${size.join(' ')}`, class: `diagram ${layout}`, role: 'group',
    'aria-labelledby': 'diagram-h' });
  const marker = (id, tint) => svg('marker', { id, class: tint, viewBox: '0 0 10 10', refX: 8, refY: 5, markerWidth: 11, markerHeight: 11,
    orient: 'auto', markerUnits: 'userSpaceOnUse' },
    svg('path', { d: 'M0 0.5L10 5L0 9.5z' }));
  root.append(svg('defs', null, marker('tip', 'tip'),
    marker('tip-dim', 'tip dim'), marker('tip-live', 'tip live'), marker('tip-cookie', 'tip cookie')));
  const parts = { root, counts: {}, flows: {}, boxes: {} };

  for (const [a, b, dim] of UNCOUNTED)
    root.append(svg('path', { d: wide ? a : b, class: dim ? 'arrow never' : 'arrow', 'marker-end': `url(#${dim ? 'tip-dim' : 'tip'})` }));
  for (const [from, to, , a, , b] of FLOWS) {
    const cookie = from === 'LISTEN' && to !== 'SYN-RECEIVED';
    const arrow = svg('path', { d: wide ? a : b, class: cookie ? 'arrow cookie' : 'arrow',
      'marker-end': `url(#${cookie ? 'tip-cookie' : 'tip'})` });
    parts.flows[`${from}>${to}`] = { arrow, cookie };
    root.append(arrow);
  }
  for (const [state, { label, dim, [layout]: [x, y] }] of Object.entries(STATES)) {
    const resets = RESETS.includes(state), height = resets ? tall : box[1], top = y - height / 2;
    const count = svg('text', { x, y: top + 37, class: 'count' });
    const group = svg('g', { class: dim ? 'state dim' : 'state', id: `state-${label}` },
      svg('rect', { x: x - box[0] / 2, y: top, width: box[0], height, rx: 6 }),
      svg('text', { x, y: top + 16, class: 'name' }, state), count);
    parts.counts[state] = count;
    parts.boxes[state] = group;
    if (resets) {
      const text = svg('text', { x, y: top + 56, class: 'reset' });
      parts.flows[`${state}>CLOSED`] = { text, prefix: '✕ ' };
      group.append(text);
    }
    root.append(group);
  }
  root.append(svg('g', { class: 'state end' },
    svg('rect', { x: end[0] - 42, y: end[1] - 15, width: 84, height: 30, rx: 6 }),
    svg('text', { x: end[0], y: end[1] + 4, class: 'name' }, 'CLOSED')));
  for (const [from, to, what, , a, , b] of FLOWS) {
    const [x, y, anchor = 'middle'] = wide ? a : b;
    const text = svg('text', { x, y, class: 'flow', 'text-anchor': anchor });
    root.append(text, svg('text', { x, y: y + 12, class: 'event', 'text-anchor': anchor }, what));
    parts.flows[`${from}>${to}`].text = text;
  }
  return parts;
}
