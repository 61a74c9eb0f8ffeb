"use strict";

/** An element with properties (`class`, `text`, `on...` handlers, `aria-...`, `data-...` and others) and children. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace what an element holds; what is null or false is left out. */
const fill = (element, ...children) =>
  element.replaceChildren(...children.flat().filter((child) => child || child === ""));

const byId = (id) => document.getElementById(id);

const count = (number) => number.toLocaleString("en");

const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : /(s|ch)$/.test(noun) ? "es" : "s"}`;

/** Bytes in decimal units, three digits. */
function bytes(number) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(number) : number.toPrecision(3)} ${units[unit]}`;
}

/** Microseconds, or milliseconds above a thousand of them. */
function time(microseconds) {
  if (microseconds >= 1000) return `${(microseconds / 1000).toPrecision(3)} ms`;
  return `${microseconds >= 100 ? microseconds.toFixed(0) : microseconds.toPrecision(2)} µs`;
}

/** What the style sheet says of colours and type, for canvases. Asked again when the system's scheme changes. */
const theme = {
  values: new Map(),
  get(name) {
    if (!this.values.has(name)) {
      this.values.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
    }
    return this.values.get(name);
  },
  /** The colour of a kind of op. */
  category(name) {
    return this.get(`op-${name}`) || this.get("op-other");
  },
};

const themeListeners = [];
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  theme.values.clear();
  for (const listener of themeListeners) listener();
});

/** Fit a canvas's pixels to its place on the page; its context draws in CSS pixels. */
function sizedContext(canvas) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** The one floating note of the page, next to the pointer. */
const tooltip = {
  show(x, y, ...children) {
    const note = byId("tooltip");
    fill(note, ...children);
    note.hidden = false;
    const left = Math.min(x + 14, innerWidth - note.offsetWidth - 8);
    const top = y + 18 + note.offsetHeight > innerHeight ? y - note.offsetHeight - 10 : y + 18;
    note.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  },
  hide() {
    byId("tooltip").hidden = true;
  },
};
