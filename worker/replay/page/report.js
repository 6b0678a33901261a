"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function coloured(value, style) {
  if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return value;
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, coloured(part, style)]));
  return value;
}

function axis(own, style) {
  const grid = style.getPropertyValue("--grid").trim();
  return {automargin: true, gridcolor: grid, zeroline: false, linecolor: grid, ...own,
    title: own?.title ? {...own.title, standoff: 10, font: {size: 12}} : undefined};
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  for (const [name, figure] of Object.entries(figures)) {
    const {xaxis, yaxis, ...rest} = figure.layout;
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: {t: 8, r: 8, b: 40, l: 48},
      font: {color: style.getPropertyValue("--text").trim(), size: 12, family: "inherit"},
      legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, hovermode: "closest",
      ...rest, xaxis: axis(xaxis, style), yaxis: axis(yaxis, style),
    };
    const data = figure.data.map((trace) => coloured(trace, style));
    Plotly.react(document.getElementById("chart-" + name), data, layout, {responsive: true, displaylogo: false, displayModeBar: false});
  }
}

draw();
dark.addEventListener("change", draw);
