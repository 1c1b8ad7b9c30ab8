// The page: its state is the address, and `show` draws it.
import { EMPTY, PAGE, asks, filtered, readAddress, toggled, writeAddress } from "./address.js";
import { card, fillDocument, like } from "./cards.js";
import { $, button, el, on, plural, remember, seconds } from "./dom.js";
import { explanation } from "./explain.js";
import { fillChosen, fillFacets } from "./facets.js";
import { listenForKeys } from "./keys.js";
import { keep, listenForPictures, recall } from "./pictures.js";
import { ask } from "./server.js";
import { fillWelcome } from "./welcome.js";

const WORTH = 0.3; // seconds of reranking from which the first ranking is shown meanwhile
const KEPT = 40; // answers, for Back and Forward
const MODES = { hybrid: "words and meaning", dense: "meaning", lexical: "words" };

let service = null; // what GET /service says
let state = readState();
let shown = null; // {name, asked, key, answer, signal} of the results on the page
let running = null; // the AbortController of the last search
let unreached = false;
const answers = new Map();
const facets = new Map(); // of queries without filters

function readState() {
	return { ...readAddress(), key: history.state?.key ?? "" };
}

const links = (changes) => writeAddress({ ...state, open: "", ...changes });

function go(changes, { replace = false, focus = false, again = false } = {}) {
	state = { ...state, ...changes };
	if (!state.picture || !recall(state.key)) Object.assign(state, { picture: false, key: "" });
	const address = writeAddress(state);
	if (address === writeAddress(readAddress()) && state.key === (history.state?.key ?? "")) replace = true;
	const entry = { key: state.key, opened: replace ? history.state?.opened : Boolean(changes.open) };
	history[replace ? "replaceState" : "pushState"](entry, "", address);
	return show({ focus, again });
}

// A request of the state; `key` names the picture that goes with it.
function request() {
	const asked = { text: state.q || null, id: state.id || null, k: state.k, offset: state.offset };
	for (const name of ["lang", "mode", "system", "index"]) if (state[name]) asked[name] = state[name];
	if (filtered(state)) asked.where = state.where;
	if (state.rerank !== null && canRerank()) asked.rerank = state.rerank;
	return asked;
}

function search(asked, key, signal) {
	const waiting = (time) => notify(`The server is busy. Trying again in ${plural(time, "second")}.`);
	const picture = recall(key);
	if (!picture) return ask("search", { json: asked, signal, waiting });
	const form = new FormData();
	form.set("image", picture.blob, "picture");
	form.set("query", JSON.stringify(asked));
	return ask("search", { form, signal, waiting });
}

async function show({ focus = false, again = false, scroll = null } = {}) {
	fillForm();
	if (!service) return; // `start` comes back here
	showDocument();
	const lost = state.picture && !recall(state.key);
	if (!asks(state) || (lost && !state.q && !state.id)) {
		running?.abort();
		shown = null;
		busy(false);
		notify(lost && LOST);
		say("");
		document.title = service.title;
		$("found").hidden = true;
		$("welcome").hidden = false;
		fillWelcome(currentIndex(), links, state.where.lang ?? [], narrow);
		return;
	}
	document.title = `${state.q || (state.id ? `Like ${state.id}` : "A picture")} – ${service.title}`;
	const [asked, key] = [request(), lost ? "" : state.key];
	const name = JSON.stringify([asked, key]);
	if (name === shown?.name && !again) return;
	running?.abort();
	const { signal } = (running = new AbortController());
	notify(lost && `${LOST} These are the results for the words alone.`);
	let answer = again ? null : answers.get(name);
	if (!answer) {
		busy(true);
		try {
			answer = await searchTwice(asked, key, signal);
		} catch (error) {
			if (signal.aborted) return;
			busy(false);
			return fail(error);
		}
		if (signal.aborted) return;
		busy(false);
		if (!lost) notify("");
	}
	if (answers.size > KEPT) answers.clear();
	answers.set(name, answer);
	render({ name, asked, key, answer, signal });
	if (focus) $("results-title").focus({ preventScroll: true });
	if (focus) $("main").scrollIntoView();
	if (scroll !== null) scrollTo(0, scroll);
}

const LOST = "The picture of this search is gone: links and reloads lose it. Please choose it again.";

// Where reranking takes long, the first ranking is shown until it is done.
async function searchTwice(asked, key, signal) {
	const plain = facetName(asked, key);
	const count = !facets.has(plain);
	if (count && asked.where) askFacets(asked, key, plain, signal);
	const more = count && !asked.where ? { facets: true } : {};
	const keepFacets = (answer) => answer.facets && facets.set(plain, answer);
	if (reranks() && service.rerank.seconds > WORTH) {
		const first = { ...asked, rerank: false };
		const answer = await search({ ...first, ...more }, key, signal);
		signal.throwIfAborted();
		keepFacets(answer);
		delete more.facets;
		render({ name: "", asked: first, key, answer, signal, pending: true });
	}
	const answer = await search({ ...asked, ...more }, key, signal);
	keepFacets(answer);
	return answer;
}

function facetName(asked, key) {
	const { where, offset, k, rerank, ...plain } = asked;
	return JSON.stringify([plain, key]);
}

async function askFacets(asked, key, plain, signal) {
	const { where, ...all } = asked;
	try {
		facets.set(plain, await search({ ...all, k: 1, offset: 0, rerank: false, facets: true }, key, signal));
		if (shown) renderFacets(shown);
	} catch { /* the results are there without counts */ }
}

function fail(error) {
	unreached = error.status === 0;
	const again = unreached || error.status === 429 || error.status >= 500;
	notify(error.message, again && button({ click: () => (service ? show({ again: true }) : start()) }, "Try again"));
}

function notify(message, action = null) {
	$("notice").replaceChildren(...[message && el("p", {}, message), action].filter(Boolean));
}

const say = (text) => ($("status").textContent = text);

function busy(on) {
	document.body.classList.toggle("busy", on);
	$("results").setAttribute("aria-busy", String(on));
}

// The form

const currentIndex = () => service.indexes.find(({ name }) => name === state.index) ?? service.indexes[0];

const currentSystem = () => service.systems.find(({ name }) => name === state.system) ?? service.systems[0];

const canRerank = () => Boolean(state.mode ? service.rerank.spec : currentSystem().reranks);

const reranks = () => canRerank() && (state.rerank ?? (service.rerank.default && !state.id));

function fillForm() {
	$("text").value = state.q;
	grow();
	const picture = recall(state.key);
	$("picture").hidden = !picture;
	if (picture) $("picture-shown").src = picture.url;
	$("like").hidden = !state.id;
	if (state.id) {
		const drop = { class: "chip", "aria-label": `Remove: like ${state.id}`, click: () => go({ id: "", offset: 0 }) };
		$("like").replaceChildren(button(drop, "like ", el("bdi", {}, state.id), " ×"));
	}
	if (!service) return;
	const index = currentIndex();
	fillSelect("index", service.indexes.map(({ name }) => [name, name]), index.name);
	fillSelect("system", service.systems.map(({ name }) => [name, name]), currentSystem().name);
	fillSelect("mode", [["", "as set up"], ...service.modes.map((mode) => [mode, MODES[mode] ?? mode])], state.mode);
	const langs = Object.keys({ ...index.langs, ...(state.lang && { [state.lang]: 0 }) }).map((code) => [code, index.names[code] ?? code]);
	langs.sort((a, b) => a[1].localeCompare(b[1]));
	fillSelect("lang", [["", "as detected"], ...langs], state.lang);
	$("rerank-row").hidden = !canRerank();
	$("rerank").checked = reranks();
	const cost = service.rerank.seconds;
	$("rerank-cost").textContent = cost ? `${reranks() ? "takes" : "adds"} about ${seconds(cost)}` : "slower";
	for (const tool of document.querySelectorAll(".picture-tool")) tool.hidden = !takesPictures();
}

const takesPictures = () => !service || currentIndex().reads.includes("image");

function fillSelect(id, values, chosen) {
	$(`${id}-row`).hidden = values.length < 2;
	$(id).replaceChildren(...values.map(([value, name]) => el("option", { value, selected: value === chosen }, name)));
}

function grow() {
	if (CSS.supports("field-sizing", "content")) return;
	$("text").style.height = "auto";
	$("text").style.height = `${$("text").scrollHeight}px`;
}

const toggle = (key, value) => go({ where: toggled(state.where, key, value), offset: 0, q: typed() });

const typed = () => $("text").value.trim();

function narrow(lang) {
	go({ where: toggled(state.where, "lang", lang) }, { replace: true });
	$("text").focus();
}

async function gotPicture(file) {
	try {
		const key = await keep(file);
		go({ key, picture: true, q: typed(), id: "", offset: 0, open: "" });
	} catch (error) {
		notify(error.message);
	}
}

function clear() {
	$("text").value = "";
	$("text").focus();
	const { index, system, mode, rerank } = state;
	if (asks(state) || filtered(state)) go({ ...EMPTY, index, system, mode, rerank });
}

// The results

function render(next) {
	const { answer, asked, pending } = next;
	const same = shown?.pending && !pending;
	const top = (one) => one.getBoundingClientRect().top;
	const before = new Map(same ? [...$("hits").children].map((one) => [one.dataset.id, top(one)]) : []);
	const focused = document.activeElement.closest("#hits li")?.dataset.id;
	shown = next;
	unreached = false;
	if (answer.reranked && !answer.cached) service.rerank.seconds ??= answer.timings.rerank_ms / 1000;
	$("welcome").hidden = true;
	$("found").hidden = false;
	const [from, to] = [asked.offset + 1, asked.offset + answer.hits.length];
	const range = answer.hits.length && (from > 1 || to < answer.total) ? `, ${from}–${to}` : "";
	const count = answer.hits.length || asked.offset ? plural(answer.total, "result") + range : "Nothing found";
	$("results-title").replaceChildren(count);
	say(pending ? `${count}. Reranking.` : same ? `${count}, reranked.` : `${count}.`);
	$("timings").replaceChildren(...timings(answer, pending));
	fillChosen(state.where, currentIndex().names, toggle);
	$("hits").replaceChildren(...answer.hits.map((hit) => card(hit, links, explain)));
	if (!answer.hits.length) {
		$("hits").append(el("li", { class: "none" }, filtered(state) ? "Nothing passes these filters." : "Try other words, or another language."));
	}
	renderFacets(next);
	renderPages(answer, asked);
	if (focused) ([...$("hits").children].find((one) => one.dataset.id === focused)?.firstChild ?? $("results-title")).focus({ preventScroll: true });
	if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
	for (const one of $("hits").children) {
		const by = before.get(one.dataset.id) - top(one);
		if (by) one.animate({ translate: [`0 ${by}px`, "0 0"] }, { duration: 350, easing: "ease-out" });
	}
}

function timings({ query, timings: took, cached, partial, reranked }, pending) {
	const time = (what) => took[`${what}_ms`] != null && `${what} ${seconds(took[`${what}_ms`] / 1000)}`;
	const parts = [
		query.text && !state.lang && query.lang && `query read as ${currentIndex().names[query.lang] ?? query.lang}`,
		cached ? "found before" : time("search"),
		pending && el("strong", {}, `reranking, about ${seconds(service.rerank.seconds)}…`),
		partial && el("strong", {}, "partial: reranking was late, so this is the first ranking"),
		reranked && !cached && time("rerank"),
		!pending && time("total"),
	].filter(Boolean);
	return parts.flatMap((part, at) => (at ? [" · ", part] : [part]));
}

function renderFacets({ asked, key }) {
	const found = facets.get(facetName(asked, key));
	fillFacets(found?.facets, state.where, currentIndex().names, found?.total, toggle);
}

function renderPages({ total }, { k, offset }) {
	const to = (rel, start, name) => start >= 0 && start < total && el("a", { rel, href: links({ offset: start }), "data-go": "results" }, name);
	const pages = [to("prev", offset > 0 ? Math.max(0, offset - k) : -1, "← Previous"), to("next", offset + k <= 1000 - k ? offset + k : -1, "Next →")];
	$("pages").replaceChildren(...pages.filter(Boolean));
	$("pages").hidden = !$("pages").childElementCount;
}

async function explain(details, hit) {
	const here = details.lastChild;
	if (!details.open || here.dataset.done) return;
	const current = shown;
	here.textContent = "Asking the server…";
	current.explained ??= search({ ...current.asked, explain: true }, current.key, current.signal);
	try {
		const { hits } = await current.explained;
		const own = hits.find(({ id }) => id === hit.id);
		here.replaceChildren(own ? explanation(own, hits) : "The index has changed since; search again.");
		here.dataset.done = "yes";
	} catch (error) {
		current.explained = null;
		here.textContent = error.name === "AbortError" ? "" : error.message;
	}
}

// A document in full; Back closes it.
async function showDocument() {
	const dialog = $("document");
	const id = state.open;
	if (!id) return dialog.close();
	if (dialog.open && dialog.dataset.id === id) return;
	try {
		const index = state.index || shown?.answer.index || currentIndex().name;
		const found = await ask(`documents/${encodeURIComponent(index)}/${encodeURIComponent(id)}`);
		if (state.open !== id) return;
		fillDocument(found, links(like(id)));
		dialog.dataset.id = id;
		if (!dialog.open) dialog.showModal();
		dialog.scrollTop = 0;
		$("document-title").focus();
	} catch (error) {
		fail(error);
		if (state.open === id) go({ open: "" }, { replace: true });
	}
}

// What the user does

function listen() {
	on("form", "submit", (event) => {
		event.preventDefault();
		if (typed() || state.picture || state.id) go({ q: typed(), offset: 0, open: "" }, { again: true });
		else if (asks(state)) clear();
	});
	on("text", "keydown", (event) => {
		if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // a word is being composed
		event.preventDefault();
		$("form").requestSubmit();
	});
	on("text", "input", grow);
	on("picture-drop", "click", () => {
		go({ key: "", picture: false, q: typed(), offset: 0 });
		$("text").focus();
	});
	listenForPictures(gotPicture, takesPictures, notify);
	for (const id of ["system", "mode", "lang"]) {
		const other = { system: { mode: "" }, mode: { system: "" } }[id]; // a system says how it searches
		on(id, "change", () => go({ [id]: $(id).value, ...other, offset: 0, q: typed() }));
	}
	on("index", "change", () => go({ index: $("index").value, where: {}, id: "", lang: "", offset: 0, q: typed() }));
	on("rerank", "change", () => go({ rerank: $("rerank").checked, q: typed() }));
	listenForKeys(clear, (rel) => document.querySelector(`#pages [rel=${rel}]`)?.click());

	document.addEventListener("click", (event) => {
		const link = event.target.closest("a[data-go], #home");
		if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey) {
			event.preventDefault();
			const next = readAddress(new URL(link.href).search);
			go({ ...next, key: next.picture ? state.key : "" }, { focus: link.dataset.go === "results" });
		}
		const dialog = event.target.closest("dialog");
		if (dialog && dialog.id !== "key" && (event.target === dialog || event.target.closest("[data-close]"))) dialog.close();
	});
	on("document", "close", () => {
		if (!state.open) return;
		if (history.state?.opened) history.back();
		else go({ open: "" }, { replace: true });
	});

	history.scrollRestoration = "manual";
	addEventListener("scrollend", () => history.replaceState({ ...history.state, scroll: scrollY }, ""));
	addEventListener("popstate", () => {
		state = readState();
		show({ scroll: history.state?.scroll ?? 0 });
	});
	addEventListener("online", () => unreached && (service ? show({ again: true }) : start()));

	const wide = matchMedia("(min-width: 56rem)"); // where there is room for them beside the results
	wide.onchange = () => ($("filters").open = wide.matches);
	wide.onchange();

	const root = document.documentElement;
	const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
	const press = () => $("theme-button").setAttribute("aria-pressed", String(isDark()));
	on("theme-button", "click", () => {
		root.dataset.theme = remember("localStorage", "theme", isDark() ? "light" : "dark");
		press();
	});
	press();
}

async function start() {
	try {
		notify("");
		service = await ask("service");
	} catch (error) {
		return fail(error);
	}
	$("title").textContent = service.title;
	await show({ scroll: history.state?.scroll ?? null });
	if (!asks(state) && matchMedia("(pointer: fine)").matches) $("text").focus();
}

listen();
fillForm();
start();
