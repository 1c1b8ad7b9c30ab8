// Nodes are built here and nowhere from strings of HTML: text of documents stays text.
export const $ = (id) => document.getElementById(id);

export const on = (id, happens, listener) => $(id).addEventListener(happens, listener);

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
	for (const [name, value] of Object.entries(attributes)) {
		if (value == null || value === false) continue;
		if (typeof value === "function") node.addEventListener(name, value);
		else node.setAttribute(name, value === true ? "" : value);
	}
	node.append(...children.filter((child) => child || child === 0));
	return node;
}

// el("a", {href, click: listener}, "text", node): null and false are left out.
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const button = (attributes, ...children) => el("button", { type: "button", ...attributes }, ...children);

export const plural = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

export const number = (value) => new Intl.NumberFormat("en").format(value);

export const score = (value) =>
	value == null ? "" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);

export const seconds = (value) =>
	value >= 9.95 ? `${value.toFixed(0)} s` : value >= 0.0995 ? `${value.toFixed(1)} s` : `${Math.max(1, Math.round(value * 1000))} ms`;

// "zho" -> "zh": what browsers choose fonts and voices by. Nothing for a code that is none.
export function tag(code) {
	try {
		return code ? Intl.getCanonicalLocales(code)[0] : null;
	} catch {
		return null;
	}
}

// The language's name in itself, or nothing where the browser does not know one.
export function ownName(code) {
	const known = tag(code);
	return known && new Intl.DisplayNames(known, { type: "language", fallback: "none" }).of(known);
}

// The text with its marks: `spans` are [from, to) in code points, `from` and `to` cut the text itself.
export function marked(text, spans = [], from = 0, to = Infinity) {
	const points = [...text];
	const end = Math.min(to, points.length);
	const nodes = [];
	let at = from;
	for (const [start, stop] of [...spans].sort((a, b) => a[0] - b[0])) {
		const [first, last] = [Math.max(start, at), Math.min(stop, end)];
		if (first >= last) continue;
		if (first > at) nodes.push(points.slice(at, first).join(""));
		nodes.push(el("mark", {}, points.slice(first, last).join("")));
		at = last;
	}
	if (at < end) nodes.push(points.slice(at, end).join(""));
	return nodes;
}

// A word kept in the browser, where it keeps any: `remember(box, name)` reads it, with a value it writes.
export function remember(box, name, value) {
	try {
		if (value !== undefined) window[box].setItem(name, value);
		return window[box].getItem(name);
	} catch {
		return value ?? null;
	}
}
