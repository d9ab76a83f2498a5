// How alike images are, each with each.

import { find, make } from "./element.js";
import { dot, spread } from "./similarity.js";

const MOST_SHOWN = 24;

export function showHeatMap({ images }) {
  const ready = images.filter((image) => image.vector);
  const shown = ready.slice(0, MOST_SHOWN);
  const pairs = shown.flatMap((one) => shown.map((other) => ({ one, other, cosine: dot(one.vector, other.vector) })));
  const heats = spread(pairs.filter(({ one, other }) => one !== other).map(({ cosine }) => cosine));
  const cells = pairs.map(({ one, other, cosine }) => {
    const cell = make("td", { title: `${one.name}\n${other.name}` }, cosine.toFixed(2));
    cell.style.setProperty("--heat", one === other ? 0 : heats.shift()); // each is like itself
    return cell;
  });
  const rows = shown.map((image) => make("tr", {}, writeHead(image, "row"), ...cells.splice(0, shown.length)));
  find("heatmap-head").replaceChildren(make("tr", {}, make("td"), ...shown.map((image) => writeHead(image, "col"))));
  find("heatmap-body").replaceChildren(...rows);
  const rest = ready.length > MOST_SHOWN ? ` These are the first ${MOST_SHOWN} of ${ready.length} images.` : "";
  find("heatmap-note").textContent = `The stronger the colour, the more alike, within this table.${rest}`;
}

const writeHead = ({ name, url }, scope) => make("th", { scope, title: name }, make("img", { src: url, alt: name }));
