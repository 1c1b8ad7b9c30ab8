// The keyboard. Single keys can be switched off, for people whose software types for them.
import { $, el, on, remember } from "./dom.js";

const LISTED = [
	["/", "to the search box"], ["Enter", "search; on a card: open it"], ["j k or ↓ ↑", "next and previous result"],
	["m", "more like this result"], ["e", "why this result is here"], ["n p", "next and previous page"],
	["Esc", "clear the search"], ["?", "these keys"],
];

let active = remember("localStorage", "keys") !== "off";

const writes = (node) => node.matches("textarea, select, input:not([type=checkbox])");

export function showKeys() {
	$("keys-list").replaceChildren(...LISTED.map(([key, does]) =>
		el("div", {}, el("dt", {}, ...key.split(" ").map((part) => (part === "or" ? " or " : el("kbd", {}, part)))), el("dd", {}, does))));
	$("keys-on").checked = active;
	$("keys").showModal();
}

// `clear()` empties the search; `go(rel)` turns the page.
export function listenForKeys(clear, go) {
	on("keys-button", "click", showKeys);
	on("keys-on", "change", (event) => {
		active = event.target.checked;
		remember("localStorage", "keys", active ? "on" : "off");
	});
	addEventListener("keydown", (event) => {
		if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
		if (document.querySelector("dialog[open]")) return;
		const { key, target } = event;
		if (key === "Escape") clear();
		else if (target === $("text") && key === "ArrowDown" && target.value.lastIndexOf("\n") < target.selectionStart) step(1);
		else if (writes(target)) return;
		else if (key === "ArrowDown" || key === "ArrowUp") {
			if (!target.closest(".card")) return; // elsewhere these scroll
			step(key === "ArrowDown" ? 1 : -1);
		} else if (key === "Enter" && target.matches(".card")) target.querySelector("h3 a").click();
		else if (!active || !single(key, target.closest(".card"))) return;
		event.preventDefault();
	});

	function single(key, card) {
		if (key === "/") $("text").focus();
		else if (key === "?") showKeys();
		else if (key === "j" || key === "k") step(key === "j" ? 1 : -1);
		else if (key === "n" || key === "p") go(key === "n" ? "next" : "prev");
		else if (key === "m" && card) card.querySelector("[data-more]").click();
		else if (key === "e" && card) card.querySelector("summary").click();
		else return false;
		return true;
	}
}

// To the next card; up from the first one is the box.
function step(by) {
	const cards = [...document.querySelectorAll("#hits .card")];
	const at = cards.indexOf(document.activeElement.closest(".card"));
	const next = at < 0 ? (by > 0 ? 0 : cards.length - 1) : at + by;
	if (next < 0) $("text").focus();
	cards[next]?.focus();
	cards[next]?.scrollIntoView({ block: "nearest" });
}
