// Which images fit a text, and which texts fit an image, best first.

import { find, make } from "./element.js";
import { dot, probability } from "./similarity.js";

const MOST_SHOWN = 12;

export function showMatches({ images, texts, chosen, model }) {
  const ready = images.filter((image) => image.vector);
  find("images-for-texts").replaceChildren(...texts.map((text) => rankImages(text, ready, model)));
  const isRanked = chosen.vector && texts.length > 0;
  find("texts-for-image").replaceChildren(isRanked ? rankTexts(chosen, texts, model) : "");
  find("no-texts").hidden = texts.length > 0;
}

function rankImages(text, images, model) {
  const ranked = rank(text, images);
  const rest = ranked.length > MOST_SHOWN ? ` (the best ${MOST_SHOWN} of ${ranked.length})` : "";
  const items = ranked.slice(0, MOST_SHOWN).map(({ item: { name, url }, cosine }) =>
    make("li", { title: name }, make("img", { src: url, alt: name }), writeScore(cosine, model)));
  const heading = make("h3", {}, text.text, make("small", {}, rest));
  return make("section", {}, heading, make("ol", { className: "thumbs" }, ...items));
}

function rankTexts(image, texts, model) {
  const items = rank(image, texts).map(({ item, cosine }) => {
    const bar = make("span", { className: "bar" });
    bar.style.setProperty("--share", Math.max(0, probability(cosine, model) ?? cosine));
    return make("li", {}, make("span", {}, item.text), writeScore(cosine, model), bar);
  });
  const head = [make("h3", {}, "Texts for ", make("em", {}, image.name)), make("img", { src: image.url, alt: "" })];
  return make("section", { className: "texts" }, ...head, make("ol", {}, ...items));
}

function rank(to, items) {
  return items.map((item) => ({ item, cosine: dot(to.vector, item.vector) })).sort((a, b) => b.cosine - a.cosine);
}

function writeScore(cosine, model) {
  const share = probability(cosine, model);
  const percent = share === null ? "" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
  return make("span", { className: "score" }, make("b", {}, percent), make("span", {}, ` cos ${cosine.toFixed(3)}`));
}
