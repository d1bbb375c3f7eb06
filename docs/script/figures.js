// Draws the figures of a page in the colours of the theme, and again when the reader changes them.
"use strict";

function themed(layout) {
  const css = getComputedStyle(document.body);
  const ink = css.getPropertyValue("--md-default-fg-color").trim();
  const faint = css.getPropertyValue("--md-default-fg-color--lightest").trim();
  const out = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { ...layout.font, color: ink, family: css.fontFamily, size: 13 },
    colorway: ["#26a69a", "#ef6c00", "#5c6bc0", "#c2185b", "#8d6e63", "#78909c"],
    margin: { l: 56, r: 16, t: 56, b: 48, ...layout.margin },
    legend: { orientation: "h", yanchor: "top", y: -0.28, ...layout.legend },
  };
  const axes = new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d+$/.test(key))]);
  for (const axis of axes) {
    out[axis] = { gridcolor: faint, linecolor: faint, zerolinecolor: faint, automargin: true, ...layout[axis] };
  }
  return out;
}

function drawFigures() {
  for (const figure of document.querySelectorAll(".nb-figure")) {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    let canvas = figure.querySelector(".nb-canvas");
    if (!canvas) {
      canvas = document.createElement("div");
      canvas.className = "nb-canvas";
      figure.append(canvas);
    }
    window.Plotly.react(canvas, data, themed(layout), { responsive: true, displayModeBar: false });
  }
}

window.addEventListener("load", () => {
  if (!window.Plotly) return;
  drawFigures();
  const scheme = { attributes: true, attributeFilter: ["data-md-color-scheme"] };
  new MutationObserver(drawFigures).observe(document.body, scheme);
});
