// A term's meaning, on hover and on focus. The theme brings Bootstrap, whose script runs after this one.
addEventListener("DOMContentLoaded", () => {
  for (const term of document.querySelectorAll('a[href*="glossary.html#"][title]')) new bootstrap.Tooltip(term);
});
