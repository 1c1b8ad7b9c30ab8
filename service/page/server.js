// Requests to the server: the key, retries where it is busy, errors as one line, pictures behind a key.
import { $, remember } from "./dom.js";

const TRIES = 4;

export class Refused extends Error {
	constructor(status, message) {
		super(message);
		this.status = status; // 0: the server was not reached
	}
}

let key = remember("sessionStorage", "key");

// Paths of the API are relative to the page, so that both may lie below a proxy's prefix.
export const place = (path) => new URL(path.replace(/^\//, ""), new URL(".", location.href)).href;

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

// The answer's JSON; `waiting(seconds)` is called when the server is busy and the request will be made again.
export async function ask(path, { json, form, signal, waiting = () => {} } = {}) {
	const request = { headers: headers(), signal };
	if (json || form) request.method = "POST";
	if (form) request.body = form;
	if (json) {
		request.body = JSON.stringify(json);
		request.headers["Content-Type"] = "application/json";
	}
	for (let tried = 1; ; tried++) {
		let answer;
		try {
			answer = await fetch(place(path), request);
		} catch (error) {
			if (error.name === "AbortError") throw error;
			throw new Refused(0, "The server does not answer. Is it running, and are you online?");
		}
		if (answer.ok) return answer.json();
		if (answer.status === 401) {
			await askKey(Boolean(request.headers.Authorization));
			signal?.throwIfAborted();
			Object.assign(request.headers, headers());
			tried = 0;
			continue;
		}
		if ((answer.status === 429 || answer.status === 503) && tried < TRIES && answer.headers.has("Retry-After")) {
			const seconds = Math.min(60, Number(answer.headers.get("Retry-After")) || 2);
			waiting(seconds);
			await pause(seconds, signal);
			continue;
		}
		throw new Refused(answer.status, await reason(answer));
	}
}

async function reason(answer) {
	try {
		return (await answer.json()).error.message;
	} catch {
		return `The server answered with status ${answer.status}.`;
	}
}

function pause(seconds, signal) {
	return new Promise((resolve, reject) => {
		setTimeout(resolve, seconds * 1000);
		signal?.addEventListener("abort", () => reject(signal.reason));
	});
}

// One dialog however many requests wait for it.
let asked = null;

function askKey(wrong) {
	asked ??= new Promise((resolve) => {
		const dialog = $("key");
		if (wrong) $("key-wrong").textContent = "The server does not know that key. Please try another.";
		$("key-value").value = "";
		dialog.addEventListener("cancel", (event) => event.preventDefault());
		$("key-form").onsubmit = () => {
			key = remember("sessionStorage", "key", $("key-value").value);
			asked = null;
			resolve();
		};
		if (!dialog.open) dialog.showModal();
	});
	return asked;
}

// An <img> sends no key: where there is one, the picture is fetched and shown from memory.
export async function showPicture(image, path) {
	if (!key) {
		image.src = place(path);
		return;
	}
	try {
		const answer = await fetch(place(path), { headers: headers() });
		if (!answer.ok) throw new Refused(answer.status, "");
		image.src = URL.createObjectURL(await answer.blob());
		image.onload = () => URL.revokeObjectURL(image.src);
	} catch {
		image.dispatchEvent(new Event("error"));
	}
}
