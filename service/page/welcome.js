// The page before the first search: what is in the index, and what one could ask.
import { $, button, el, number, ownName, plural, tag } from "./dom.js";

const HOLDS = {
	text: (count) => plural(count, "text"), image: (count) => plural(count, "picture"), "text+image": (count) => `${number(count)} with both`,
};

// `index` is one of /service; `links(changes)` gives an address; `narrow(lang)` sets a filter for the next search.
export function fillWelcome(index, links, chosen, narrow) {
	const langs = Object.entries(index.langs).sort((a, b) => b[1] - a[1]);
	const most = langs[0]?.[1] ?? 1;
	const holds = Object.entries(index.modalities).map(([name, count]) => HOLDS[name]?.(count) ?? `${number(count)} ${name}`);
	const { examples } = index;
	$("welcome").replaceChildren(...[
		el("p", { class: "lead" }, el("strong", {}, plural(index.documents, "document")),
			langs.length > 1 && el("span", {}, ` in ${plural(langs.length, "language")}`),
			holds.length > 1 && el("span", {}, `: ${holds.join(", ")}`),
			"."),
		index.reads.includes("image") && el("p", { class: "note" }, "Write in any language. Or drop, paste or take a picture, with or without words."),
		examples.length > 0 && el("h2", {}, "Try"),
		examples.length > 0 && el("ul", { class: "examples" }, ...examples.map(({ text, lang }) =>
			el("li", {}, el("a", { href: links({ q: text }), "data-go": true, lang: tag(lang), dir: "auto" }, text)))),
		langs.length > 1 && el("h2", {}, "Languages"),
		langs.length > 1 && el("ul", { class: "langs" }, ...langs.map(([code, count]) => language(code, count))),
	].filter(Boolean));

	function language(code, count) {
		const name = index.names[code] ?? code;
		const own = ownName(code);
		const share = el("i", { class: "share", "aria-hidden": "true" });
		share.style.inlineSize = `${Math.max(2, (100 * count) / most)}%`;
		return el("li", {}, button({
			"aria-pressed": String(chosen.includes(code)), click: () => narrow(code),
			title: `Only documents in ${name}`,
		}, el("span", {}, name), own && own !== name && el("span", { lang: tag(code), class: "own" }, own), el("span", { class: "count" }, number(count)), share));
	}
}
