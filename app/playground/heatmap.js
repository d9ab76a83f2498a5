// How alike images are, each with each.

import { find, make } from "./element.js";
import { dot, spread } from "./similarity.js";

const MOST_SHOWN = 24;

export function showHeatMap({ images }) {
  const ready = images.filter((image) => image.vector);
  const shown = ready.slice(0, MOST_SHOWN);
  const cosines = shown.map((row) => shown.map((column) => dot(row.vector, column.vector)));
  const others = cosines.flatMap((row, i) => row.filter((_, j) => j !== i)); // each is like itself
  const heats = spread(others);
  const caption = make("caption", { id: "heatmap-caption" }, "Cosine of each image to each other");
  const top = make("tr", {}, make("td"), ...shown.map((image) => head(image, "col")));
  const rows = cosines.map((row, i) =>
    make("tr", {}, head(shown[i], "row"), ...row.map((cosine, j) => {
      const cell = make("td", { title: `${shown[i].name}\n${shown[j].name}` }, cosine.toFixed(2));
      const at = i * (shown.length - 1) + j - (j > i ? 1 : 0);
      cell.style.setProperty("--heat", i === j ? 0 : heats[at]);
      cell.className = i === j ? "self" : "";
      return cell;
    })));
  find("heatmap-table").replaceChildren(caption, make("thead", {}, top), make("tbody", {}, ...rows));
  find("heatmap-note").textContent = ready.length > MOST_SHOWN
    ? `The first ${MOST_SHOWN} of ${ready.length} images.` : "Darker is more alike, within this table.";
}

function head(image, scope) {
  return make("th", { scope, title: image.name }, make("img", { src: image.url, alt: image.name }));
}
