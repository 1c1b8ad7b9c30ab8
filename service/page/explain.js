// Why a hit stands where it does: its place after each stage, as a drawing among its neighbours and as a table.
import { el, score, svg } from "./dom.js";

const SOURCES = new Set(["dense", "lexical"]); // found side by side; what comes after them joins or reorders
const [WIDTH, HEIGHT, EDGE] = [320, 110, 18];

// `hits` are those of the page, each with its stages.
export function explanation(hit, hits) {
	const stages = hit.stages ?? [];
	if (!stages.length) return el("p", {}, "No stages are known.");
	return el("div", { class: "why" },
		stages.length > 1 && slopes(hit, hits),
		el("table", {},
			el("caption", { class: "hidden" }, "Places and scores by stage"),
			el("thead", {}, el("tr", {}, ...["Stage", "Place", "Score", "Moved"].map((name) => el("th", { scope: "col" }, name)))),
			el("tbody", {}, ...stages.map((stage, at) => row(stage, at, stages)))));
}

function row({ stage, rank, score: value }, at, stages) {
	const [name, model] = shorten(stage);
	return el("tr", {},
		el("th", { scope: "row", title: stage }, name, model && el("small", {}, model)),
		el("td", {}, rank ?? "–"),
		el("td", {}, score(value)),
		moved(stages[at], stages.slice(0, at)));
}

// "rerank(yesno:pointwise@offline:gemma, depth=50)" -> "yesno", "offline:gemma".
const shorten = (stage) => stage.match(/^(?:rerank\()?([^:@?,(]*)[^@]*@?([^,?)]*)/).slice(1);

function moved({ stage, rank }, before) {
	if (!before.length || SOURCES.has(stage)) return el("td", {}, before.length && rank == null ? "not found" : "");
	const last = before.at(-1);
	if (SOURCES.has(last.stage)) {
		const from = before.filter((one) => one.rank != null).map((one) => `${one.stage} ${one.rank}`);
		return el("td", {}, from.length ? `from ${from.join(", ")}` : "");
	}
	if (rank == null) return el("td", { class: "down" }, "taken out");
	if (last.rank == null) return el("td", { class: "up" }, "came in");
	const by = last.rank - rank;
	if (!by) return el("td", {}, "stayed");
	return el("td", { class: by > 0 ? "up" : "down" }, `${by > 0 ? "▲ up" : "▼ down"} ${Math.abs(by)}`);
}

function slopes(hit, hits) {
	const count = hit.stages.length;
	const deepest = Math.max(2, ...hits.flatMap((one) => (one.stages ?? []).map((stage) => stage.rank ?? 0)));
	const x = (at) => EDGE + (at * (WIDTH - 2 * EDGE)) / (count - 1);
	const y = (rank) => EDGE + ((HEIGHT - 2 * EDGE) * Math.log(rank)) / Math.log(deepest); // the first places matter most
	const dots = (one) => one.stages.flatMap(({ rank }, at) => (rank == null ? [] : [[x(at), y(rank), rank]]));
	const path = (one) => "M" + dots(one).map(([cx, cy]) => `${cx.toFixed(1)} ${cy.toFixed(1)}`).join("L");
	const others = hits.filter((one) => one !== hit && one.stages?.length === count && dots(one).length);
	return svg("svg", { class: "slopes", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" },
		...others.map((one) => svg("path", { d: path(one) })),
		dots(hit).length > 0 && svg("path", { class: "own", d: path(hit) }),
		...dots(hit).flatMap(([cx, cy, rank]) => [svg("circle", { cx, cy, r: 3.5 }), svg("text", { x: cx, y: cy - 7 }, rank)]));
}
