// The page: what was given to it, what is chosen, and which view is seen.

import { find, make } from "./element.js";
import { showHeatMap } from "./heatmap.js";
import { showMatches } from "./matches.js";
import { showPatches } from "./patches.js";
import { drawSamples } from "./samples.js";
import { decodeVector, Service } from "./service.js";
import { showVectors } from "./vectors.js";

const TYPING_MS = 350; // of silence, before queries are sent
const VIEWS = { matches: showMatches, heatmap: showHeatMap, patches: showPatches, vectors: showVectors };

const state = { model: null, images: [], texts: [], chosen: null };
const service = new Service();
const known = new Map(); // texts to their vectors
let working = null; // ends the work on images, while there is any
let asking = null; // ends the last request for texts
let presses = 0; // of "Draw samples"

const say = (service.onWait = (words) => (find("status").textContent = words));
const isWaiting = (image) => !image.done;

async function start() {
  try {
    state.model = await service.describe();
  } catch (error) {
    return explain(error);
  }
  const { id, dim, device, dtype, pooled, pretrained, text } = state.model;
  find("model").textContent = `${id} · ${dim} numbers${pooled ? "" : ", of patches only"} · ${dtype} on ${device}`;
  find("random").hidden = pretrained;
  say("");
  for (const radio of pooled ? [] : find("views").querySelectorAll("input")) {
    radio.checked = radio.value === "patches"; // all that there is of this model
    radio.disabled = !radio.checked;
  }
  find("queries").disabled = text === null;
  if (text === null) { // the service itself says why
    await service.embedTexts([""]).catch((error) => (find("query-note").textContent = error.message));
  }
  embedImages();
  embedTexts();
}

function explain(error) {
  if (error.status !== 401) return say(error.message);
  find("key-reason").textContent = `The service says: ${error.message}.`;
  find("key-form").hidden = false;
  find("key").focus();
}

function addImages(files) {
  for (const { name, blob } of files) {
    const image = { name, blob, url: URL.createObjectURL(blob), words: make("p") };
    const properties = { type: "button", title: name, ariaPressed: "false", onclick: () => choose(image) };
    image.button = make("button", properties, make("img", { src: image.url, alt: name }));
    find("gallery").append(make("li", {}, image.button, image.words));
    state.images.push(image);
  }
  embedImages();
}

function choose(image) {
  state.chosen = image;
  for (const each of state.images) each.button.ariaPressed = String(each === image);
  render();
}

async function embedImages() {
  if (working || !state.model) return; // whoever is at work takes the new ones too
  const mine = (working = new AbortController());
  const output = state.model.pooled ? "pooled" : "patches";
  try {
    for (let batch; (batch = service.takeBatch(state.images.filter(isWaiting))).length > 0; ) {
      showProgress();
      const items = await service.embedImages(batch, output, mine.signal).catch((error) => {
        if (error.status === 401 || mine.signal.aborted) throw error;
        return batch.map(() => ({ error }));
      });
      batch.forEach((image, i) => settle(image, items[i]));
      choose(state.chosen ?? batch.find((image) => !image.failed) ?? null);
    }
    endWork();
  } catch (error) {
    if (mine.signal.aborted) return; // by whoever ended the work
    endWork();
    explain(error);
  }
}

function endWork() {
  working?.abort();
  working = null;
  showProgress();
}

function settle(image, { embedding, patches, warnings = [], error }) {
  const told = warnings.filter((warning) => warning !== "random_weights").join(", ").replaceAll("_", " ");
  const vector = embedding ? decodeVector(embedding) : null;
  Object.assign(image, { done: true, failed: Boolean(error), vector, patches });
  const textContent = error ? error.message.replace(/^image \d+: /, "") : told;
  Object.assign(image.words, { textContent, className: error ? "error" : "note" });
  image.button.disabled = image.failed;
}

function showProgress() {
  const done = state.images.filter((image) => image.done).length;
  const failed = state.images.filter((image) => image.failed).length;
  find("progress").hidden = !working;
  Object.assign(find("bar"), { max: state.images.length || 1, value: done });
  say(state.images.length ? `${done} of ${state.images.length} images${failed ? `, ${failed} not taken` : ""}` : "");
}

function stop() {
  for (const image of state.images.filter(isWaiting)) settle(image, { error: new Error("stopped") });
  endWork();
}

function clear() {
  for (const image of state.images) URL.revokeObjectURL(image.url);
  Object.assign(state, { images: [], chosen: null });
  find("gallery").replaceChildren();
  endWork();
  render();
}

async function embedTexts() {
  asking?.abort();
  if (!state.model || find("queries").disabled) return;
  const { signal } = (asking = new AbortController());
  await new Promise((goOn) => setTimeout(goOn, TYPING_MS)); // whoever types on aborts it
  const lines = find("queries").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const unknown = lines.filter((line) => !known.has(line));
  try {
    const vectors = await service.embedTexts(unknown, signal);
    vectors.forEach((vector, i) => known.set(unknown[i], vector));
    state.texts = [...new Set(lines)].map((text) => ({ text, vector: known.get(text) }));
    find("query-note").textContent = "";
    render();
  } catch (error) {
    if (error.status === 401) explain(error);
    else if (!signal.aborted) find("query-note").textContent = error.message.replace(/^text \d+/, "a text");
  }
}

async function draw() {
  const samples = await drawSamples(12, (presses += 1));
  if (!find("queries").value && !find("queries").disabled) {
    find("queries").value = [samples[0].name, samples[2].name, "a star"].join("\n");
    embedTexts();
  }
  addImages(samples);
}

function render() {
  const view = state.chosen ? document.querySelector("[name=view]:checked").value : "empty";
  for (const name of ["empty", ...Object.keys(VIEWS)]) find(name).hidden = name !== view;
  VIEWS[view]?.(state, service);
}

function takeFiles(event, files) {
  if (files.length === 0) return;
  event.preventDefault();
  addImages([...files].map((file) => ({ name: file.name, blob: file })));
}

find("files").addEventListener("change", (event) => {
  takeFiles(event, event.target.files);
  event.target.value = ""; // the same file may be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    find("drop").classList.toggle("over", kind === "dragover");
    if (kind === "dragover") event.preventDefault();
    if (kind === "drop") takeFiles(event, event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => takeFiles(event, event.clipboardData.files));
for (const [id, press] of Object.entries({ draw, clear, stop })) find(id).addEventListener("click", press);
find("queries").addEventListener("input", embedTexts);
find("views").addEventListener("change", render);
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  service.key = find("key").value;
  find("key").value = "";
  find("key-form").hidden = true;
  start();
});

render();
start();
