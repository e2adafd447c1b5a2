// SPDX-License-Identifier: Apache-2.0
/// Charts over time, drawn by Chart.js, with the figures as a table behind them.
import { h, table } from "./dom.js";
import { day, moment } from "./format.js";

let library;

/// It is asked for when the first chart is drawn: the overview needs none.
const chartLibrary = () => (library ??= import("./chart.min.js").then(() => globalThis.Chart));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/// Ticks at multiples of 1024 read as "512 MiB", where those at multiples of 1000 would not.
function binarySteps(scale) {
  const top = Math.max(scale.max, 1),
    unit = 1024 ** Math.floor(Math.log(top) / Math.log(1024));
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((each) => top / unit / each <= 5) ?? 1024;
  scale.ticks = [];
  for (let value = 0; value <= top + step * unit * 0.999; value += step * unit) scale.ticks.push({ value });
  scale.max = scale.ticks.at(-1).value;
}

function options(title, times, inWords) {
  const grid = { color: colour("--line"), drawBorder: false };
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12 };
  const ticks = { color: colour("--muted"), font };
  return {
    animation: false,
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false },
    plugins: {
      legend: { display: false },
      tooltip: { callbacks: { title: ([item]) => moment(times[item.dataIndex]), label: (item) => inWords(item.raw) } }
    },
    scales: {
      x: { grid: { display: false }, ticks: { ...ticks, maxRotation: 0, autoSkipPadding: 16 } },
      y: {
        beginAtZero: true,
        grid,
        ticks: { ...ticks, callback: (value) => inWords(value) },
        afterBuildTicks: binarySteps
      }
    }
  };
}

async function draw(canvas, title, times, values, inWords) {
  const Chart = await chartLibrary();
  if (!canvas.isConnected) return;
  const chart = new Chart(canvas, {
    type: "bar",
    data: {
      labels: times.map(day),
      datasets: [
        {
          data: values,
          backgroundColor: colour("--accent"),
          borderRadius: 2,
          maxBarThickness: 22,
          categoryPercentage: 0.9,
          barPercentage: 0.85
        }
      ]
    },
    options: options(title, times, inWords)
  });
  // The page replaces a view as a whole; its charts must not go on watching elements that are gone.
  new MutationObserver((_, observer) => {
    if (canvas.isConnected) return;
    observer.disconnect();
    chart.destroy();
  }).observe(document.getElementById("main"), { childList: true, subtree: true });
}

/// `values` at `times`, oldest first; `inWords(value)` is what a person reads.
export function barChart(title, times, values, inWords) {
  const most = values.indexOf(Math.max(...values));
  const words =
    `${title}: ${values.length} bars from ${moment(times[0])} to ${moment(times.at(-1))}; ` +
    `the highest is ${inWords(values[most])}, the last ${inWords(values.at(-1))}`;
  const canvas = h("canvas", { role: "img", "aria-label": words });
  draw(canvas, title, times, values, inWords).catch(() => canvas.replaceWith("The chart could not be drawn."));
  const rows = times.map((time, at) => ({ time, value: values[at] })).reverse();
  const figures = h(
    "details",
    {
      ontoggle: (event) => {
        if (!event.target.open || figures.querySelector("table")) return;
        figures.append(
          table(
            title,
            [
              { name: "When", cell: (row) => moment(row.time) },
              { name: "Value", kind: "number", cell: (row) => inWords(row.value) }
            ],
            rows,
            { hideCaption: true }
          )
        );
      }
    },
    h("summary", null, "As a table")
  );
  return h("figure", { class: "chart" }, h("figcaption", null, title), h("div", { class: "canvas" }, canvas), figures);
}
