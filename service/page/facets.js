// Filters: languages and modalities with their counts, and what is set.
import { $, button, el, number } from "./dom.js";

const TITLES = { lang: "Language", modality: "Holds" };

// `facets` are those of the query without filters; `toggle(key, value)` sets or unsets one.
export function fillFacets(facets, where, names, total, toggle) {
	const focused = document.activeElement?.id;
	$("facets").replaceChildren(...Object.keys(TITLES).flatMap((key) => {
		const [counted, set] = [facets?.[key] ?? [], where[key] ?? []];
		const others = set.filter((value) => !counted.some((one) => one.value === value)); // they stay, though nothing has them
		const values = [...counted, ...others.map((value) => ({ value, name: names[value] ?? value, count: 0 }))];
		if (values.length < 2 && !set.length) return [];
		const boxes = values.map((one) => box(key, one, set.includes(one.value), toggle));
		return el("fieldset", {}, el("legend", {}, TITLES[key]), el("div", {}, ...boxes));
	}));
	if ($("facets").childElementCount && total) {
		$("facets").append(el("p", { class: "note" }, `Of the best ${number(Math.min(total, 100))} results, unfiltered.`));
	}
	if (focused?.startsWith("facet-")) $(focused)?.focus();
	const set = Object.values(where).flat().length;
	$("filters-set").textContent = set ? ` (${set})` : "";
	$("filters").hidden = !$("facets").childElementCount;
}

function box(key, { value, name, count }, checked, toggle) {
	const id = `facet-${key}-${value}`;
	return el("label", { class: "facet", for: id },
		el("input", { type: "checkbox", id, checked, change: () => toggle(key, value) }),
		el("span", {}, (name || value).replace("+", " and ")),
		el("span", { class: "count" }, number(count)));
}

// What is set, above the results: a phone's filters are folded away.
export function fillChosen(where, names, toggle) {
	const pairs = Object.entries(where).flatMap(([key, values]) => values.map((value) => [key, value]));
	const chips = pairs.map(([key, value]) => {
		const name = key === "lang" ? names[value] ?? value : key === "modality" ? value : `${key}: ${value}`;
		return el("li", {}, button({ class: "chip", click: () => toggle(key, value), "aria-label": `Remove the filter ${name}` },
			el("bdi", {}, name), " ×"));
	});
	$("chosen").replaceChildren(...chips);
	$("chosen").hidden = !pairs.length;
}
