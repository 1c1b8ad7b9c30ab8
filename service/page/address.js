// The state of a search, and the address that holds it: the names are those of GET /search.
const WORDS = ["q", "id", "lang", "index", "system", "mode", "open"];

export const PAGE = 10;
export const EMPTY = {
	...Object.fromEntries(WORDS.map((name) => [name, ""])), k: PAGE, offset: 0, rerank: null, where: {}, picture: false,
};

export function readAddress(search = location.search) {
	const given = new URLSearchParams(search);
	const state = { ...EMPTY, where: {} };
	for (const name of WORDS) state[name] = given.get(name) ?? "";
	const whole = (name, low, high, otherwise) => {
		const value = given.has(name) ? Number(given.get(name)) : NaN;
		return Number.isInteger(value) && value >= low && value <= high ? value : otherwise;
	};
	state.k = whole("k", 1, 100, PAGE);
	state.offset = whole("offset", 0, 1000 - state.k, 0);
	state.rerank = { true: true, false: false }[given.get("rerank")] ?? null;
	state.picture = given.has("picture");
	for (const pair of given.getAll("where")) {
		const at = pair.indexOf("=");
		if (at < 1) continue;
		const [key, value] = [pair.slice(0, at), pair.slice(at + 1)];
		state.where[key] = [...(state.where[key] ?? []), value];
	}
	return state;
}

// What differs from an empty page, as "?q=..."; "./" for the empty page.
export function writeAddress(state) {
	const out = new URLSearchParams();
	for (const name of WORDS) if (state[name]) out.set(name, state[name]);
	if (state.k !== PAGE) out.set("k", state.k);
	if (state.offset) out.set("offset", state.offset);
	if (state.rerank !== null) out.set("rerank", state.rerank);
	if (state.picture) out.set("picture", "1");
	for (const [key, values] of Object.entries(state.where)) {
		for (const value of values) out.append("where", `${key}=${value}`);
	}
	const text = out.toString();
	return text ? "?" + text : "./";
}

export const asks = (state) => Boolean(state.q || state.id || state.picture);

export const filtered = (state) => Object.keys(state.where).length > 0;

// `where` with the value added, or taken out if it is there.
export function toggled(where, key, value) {
	const values = where[key] ?? [];
	const left = values.includes(value) ? values.filter((other) => other !== value) : [...values, value];
	const { [key]: _, ...others } = where;
	return left.length ? { ...others, [key]: left } : others;
}
