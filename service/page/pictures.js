// The picture of a query: from a file, a drop, the clipboard or the camera; kept in memory by a key.
import { $, on } from "./dom.js";

const KEPT = 20;
const PLAIN = new Set(["image/jpeg", "image/png", "image/webp", "image/gif"]);
const SIDE = 1600; // pixels: more than any encoder looks at
const BYTES = 2_000_000;

const kept = new Map();

export const recall = (key) => (key ? kept.get(key) ?? null : null);

// The key of the picture, made smaller where it is large; an Error in words where it is none.
export async function keep(file) {
	let blob = file;
	if (!PLAIN.has(file.type) || file.size > BYTES) blob = await redraw(file);
	const key = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
	kept.set(key, { blob, url: URL.createObjectURL(blob) });
	const [[oldest, { url }]] = kept;
	if (kept.size > KEPT) {
		URL.revokeObjectURL(url);
		kept.delete(oldest);
	}
	return key;
}

async function redraw(file) {
	let bitmap;
	try {
		bitmap = await createImageBitmap(file);
	} catch {
		throw new Error(`This browser cannot read ${file.name || "that"} as a picture.`);
	}
	const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
	return draw(bitmap, Math.round(bitmap.width * scale) || 1, Math.round(bitmap.height * scale) || 1);
}

function draw(source, width, height) {
	const canvas = Object.assign(document.createElement("canvas"), { width, height });
	canvas.getContext("2d").drawImage(source, 0, 0, width, height);
	return new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.92)); // PNG where a browser writes no WebP
}

// Calls `got(file)` for each picture given, in whatever way; `allowed()` says whether pictures are taken at all.
export function listenForPictures(got, allowed, failed) {
	for (const id of ["file", "camera-file"]) {
		on(id, "change", (event) => {
			const [file] = event.target.files;
			if (file) got(file);
			event.target.value = "";
		});
	}
	on("file-button", "click", () => $("file").click());
	on("camera-button", "click", () => openCamera(got, failed));

	addEventListener("paste", (event) => {
		const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
		if (!file || !allowed()) return;
		event.preventDefault();
		got(file);
	});

	const carries = (event) => allowed() && [...event.dataTransfer.types].includes("Files");
	addEventListener("dragover", (event) => {
		if (!carries(event)) return;
		event.preventDefault();
		$("drop").hidden = false;
	});
	addEventListener("dragleave", (event) => {
		if (!event.relatedTarget) $("drop").hidden = true; // out of the window
	});
	addEventListener("drop", (event) => {
		$("drop").hidden = true;
		if (!carries(event)) return;
		event.preventDefault();
		const file = [...event.dataTransfer.files].find((one) => one.type.startsWith("image/"));
		if (file) got(file);
		else failed("What you dropped is not a picture.");
	});
}

// Where a page may not ask for the camera itself (plain http), the phone's own camera is asked for a file.
async function openCamera(got, failed) {
	if (!navigator.mediaDevices?.getUserMedia) {
		$("camera-file").click();
		return;
	}
	let stream;
	try {
		stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
	} catch (error) {
		failed(error.name === "NotAllowedError" ? "The browser did not allow the camera." : "No camera was found.");
		return;
	}
	const [dialog, video] = [$("camera"), $("video")];
	video.srcObject = stream;
	dialog.addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
	$("camera-take").onclick = async () => {
		if (!video.videoWidth) return; // no frame yet
		const blob = await draw(video, video.videoWidth, video.videoHeight);
		dialog.close();
		got(new File([blob], "camera", { type: blob.type }));
	};
	dialog.showModal();
}
