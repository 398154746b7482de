// Making and updating elements. Text is always text: names come from a cluster's users.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Makes the children those of `items`, by key. Elements that stay keep the focus. */
export function keyed(parent, items, make, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  for (const item of items) {
    let element = before.get(item.key);
    before.delete(item.key);
    if (!element) {
      element = make(item);
      element.dataset.key = item.key;
      parent.append(element);
    }
    element.item = item;
    update(element, item);
  }
  for (const gone of before.values()) gone.remove();
}
