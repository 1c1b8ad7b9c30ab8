// Runs before the first paint, so that a dark page does not flash white.
try {
	const theme = localStorage.getItem("theme");
	if (theme) document.documentElement.dataset.theme = theme;
} catch { /* no storage: the system's choice holds */ }
