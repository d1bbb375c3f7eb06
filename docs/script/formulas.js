// Sets the formulas that Markdown left as TeX between \( \) or \[ \].
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll(".arithmatex")) {
    const text = formula.textContent.trim();
    window.katex.render(text.slice(2, -2), formula, { displayMode: text.startsWith("\\[") });
  }
});
