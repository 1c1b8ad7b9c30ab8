// Hits as cards, and a document in full.
import { $, button, el, marked, score, tag } from "./dom.js";
import { place, showPicture } from "./server.js";

const FACTS = 3; // of a document's meta on its card
const LONG = 60; // characters of one

// `links(changes)` gives the address of another state; `explain(details, hit)` fills a details when it opens.
export function card(hit, links, explain) {
	const [title, body, own] = headline(hit);
	const name = `hit-${hit.rank}`;
	const opens = links({ open: hit.id });
	return el("li", { "data-id": hit.id },
		el("article", { class: "card", tabindex: "-1", "aria-labelledby": name },
			el("span", { class: "rank", "aria-hidden": "true" }, String(hit.rank)),
			hit.thumbnail && el("a", { class: "thumb", href: opens, "data-go": true, tabindex: "-1", "aria-hidden": "true" },
				picture(hit.thumbnail)),
			el("div", { class: "words" },
				el("h3", { id: name, ...(own && spoken(hit)) },
					el("a", { href: opens, "data-go": true }, ...title)),
				body.length > 0 && el("p", { class: "snippet", ...spoken(hit) }, ...body),
				facts(listFacts(hit.meta).filter((fact) => short(fact) && fact[1] !== title[0]).slice(0, FACTS)),
				el("div", { class: "actions" },
					el("span", { class: "language" }, hit.language ?? hit.modality.replace("+", " and ")),
					el("a", { href: links(like(hit.id)), "data-go": "results", "data-more": true, "aria-describedby": name }, "More like this"),
					el("details", { toggle: (event) => explain(event.currentTarget, hit) },
						el("summary", {}, "Why here? ", el("span", { class: "score" }, score(hit.score))),
						el("div", { class: "stages" }))))));
}

// The state of a search for what is like a document.
export const like = (id) => ({ id, q: "", lang: "", picture: false, offset: 0, where: {} });

const spoken = (hit) => ({ lang: tag(hit.lang), dir: hit.direction ?? "auto" });

function picture(path, alt = "") {
	const image = el("img", { alt, loading: "lazy" });
	image.addEventListener("error", () => image.replaceWith(el("span", { class: "gone" }, "no picture")), { once: true });
	showPicture(image, path);
	return image;
}

// The title where the document names one, and the rest of the snippet; a picture without words has a caption or its id.
function headline({ id, snippet, highlights, meta }) {
	const title = titled(meta);
	const cut = title && snippet.startsWith(title) ? [...title].length : 0;
	const rest = marked(snippet, highlights, cut);
	if (cut) return [marked(snippet, highlights, 0, cut), rest, true];
	return [[title || caption(snippet, meta) || id], rest, title];
}

const titled = ({ title }) => (typeof title === "string" ? title.trim() : "");

const caption = (text, { caption, shows, description }) => !text && (caption || shows || description);

const facts = (pairs, more = "") => pairs.length > 0 && el("dl", { class: `facts ${more}` },
	...pairs.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, el("bdi", {}, value)))));

const listFacts = (meta) => Object.entries(meta)
	.filter(([key, value]) => key !== "title" && ["string", "number", "boolean"].includes(typeof value) && value !== "")
	.map(([key, value]) => [key, String(value)]);

const short = ([, value]) => [...value].length <= LONG;

// A document in full, in the dialog; `more` is the address of what is like it.
export function fillDocument(found, more) {
	const title = titled(found.meta);
	const text = found.text?.startsWith(title) ? found.text.slice(title.length).trim() : found.text;
	$("document").replaceChildren(...[
		button({ class: "icon close", "data-close": true, "aria-label": "Close" }, "×"),
		found.image && el("a", { class: "large", href: place(found.image), target: "_blank" }, picture(found.image, "The picture alone")),
		el("h2", { id: "document-title", tabindex: "-1", ...(title && spoken(found)) }, title || caption(text, found.meta) || found.id),
		text && el("p", { class: "full", ...spoken(found) }, text),
		facts([["id", found.id], ["language", found.language], ["holds", found.modality], ...listFacts(found.meta)].filter((fact) => fact[1]), "all"),
		el("div", { class: "row" }, el("a", { href: more, "data-go": "results" }, "More like this")),
	].filter(Boolean));
}
