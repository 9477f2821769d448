// ---- View: puts into the document what the logic found. Text goes in as text alone. ----

const $ = id => document.getElementById(id);

/** Gives a new element its attributes and its children: elements, or text. */
function dress(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const element = (tag, attributes, ...children) => dress(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => dress(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

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

/** Shows a text that says the value of a metric, and tells which. */
function show(node, text, value, metric, labels) {
  setText(node, text);
  tell(node, value, metric, labels);
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
const perSecond = value => `${compact(value)}/s`;
