// The page: what was given to it, what is chosen, and which view is seen.

import { find, make } from "./element.js";
import { showHeatMap } from "./heatmap.js";
import { showMatches } from "./matches.js";
import { listenToPatches, showPatches } from "./patches.js";
import { drawSamples } from "./samples.js";
import { decodeVector, Service } from "./service.js";
import { listenToVectors, showVectors } from "./vectors.js";

const SAMPLES = 12;
const TYPING_MS = 350; // of silence, before queries are sent
const VIEWS = { matches: showMatches, heatmap: showHeatMap, patches: showPatches, vectors: showVectors };

const state = { model: null, images: [], texts: [], chosen: null };
const service = new Service((words) => say(words));
const known = new Map(); // texts to their vectors
let view = "matches";
let working = null; // ends the work on images, while there is any
let asking = null; // ends the last request for texts
let presses = 0; // of "Draw samples"

const isWaiting = (image) => !image.done;
const say = (words) => (find("status").textContent = words);

async function start() {
  try {
    state.model = await service.describe();
  } catch (error) {
    return explain(error);
  }
  const { id, dim, device, dtype, pretrained, text } = state.model;
  find("model").textContent = `${id} · ${dim} numbers · ${dtype} on ${device}`;
  find("random").hidden = pretrained;
  say("");
  if (text === null) await closeQueries();
  await Promise.all([embedImages(), embedTexts()]);
}

// The service itself says why it takes no texts.
async function closeQueries() {
  find("queries").disabled = true;
  await service.embedTexts(["text"]).catch((error) => (find("query-note").textContent = error.message));
}

function explain(error) {
  if (error.status !== 401) return say(error.message);
  find("key-reason").textContent = `This service asks for a key: ${error.message}.`;
  find("key-form").hidden = false;
  find("key").focus();
}

function addImages(files) {
  for (const { name, blob } of files) {
    const image = { name, blob, url: URL.createObjectURL(blob), vector: null, done: false };
    const picture = make("img", { src: image.url, alt: name });
    image.button = make("button", { type: "button", title: name, ariaPressed: "false", onclick: () => choose(image) }, picture);
    image.words = make("p");
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
  working = new AbortController();
  const { signal } = working;
  const output = state.model.pooled ? "pooled" : "patches";
  try {
    for (let batch; (batch = service.nextImages(state.images.filter(isWaiting))).length > 0; ) {
      showProgress();
      const items = await service.embedImages(batch, output, signal).catch((error) => {
        if (error.status === 401 || signal.aborted) throw error;
        return batch.map(() => ({ error }));
      });
      batch.forEach((image, i) => settle(image, items[i]));
      if (!state.chosen) choose(batch.find((image) => !image.words.textContent) ?? null);
      render();
    }
  } catch (error) {
    if (!signal.aborted) explain(error);
  } finally {
    working = null;
    showProgress();
  }
}

function settle(image, { embedding, patches, warnings = [], error }) {
  image.done = true;
  image.vector = embedding ? decodeVector(embedding) : null;
  image.patches = patches;
  image.button.disabled = Boolean(error);
  image.words.className = error ? "error" : "note";
  const told = warnings.filter((warning) => warning !== "random_weights");
  image.words.textContent = error ? error.message.replace(/^image \d+: /, "") : told.join(", ").replaceAll("_", " ");
}

function showProgress() {
  const done = state.images.filter((image) => image.done).length;
  const failed = state.images.filter((image) => image.button.disabled).length;
  find("progress").hidden = !working;
  Object.assign(find("progress").firstElementChild, { max: state.images.length || 1, value: done });
  const refused = failed ? `, ${failed} not taken` : "";
  if (working || done) say(`${done} of ${state.images.length} images${refused}`);
}

function stop() {
  working?.abort();
  for (const image of state.images.filter(isWaiting)) settle(image, { error: new Error("stopped") });
  render();
}

function clear() {
  working?.abort();
  for (const image of state.images) URL.revokeObjectURL(image.url);
  Object.assign(state, { images: [], chosen: null });
  find("gallery").replaceChildren();
  say("");
  render();
}

async function embedTexts() {
  asking?.abort();
  if (!state.model || state.model.text === null) return;
  asking = new AbortController();
  const { signal } = asking;
  const lines = [...new Set(find("queries").value.split("\n").map((line) => line.trim()).filter(Boolean))];
  const unknown = lines.filter((line) => !known.has(line));
  try {
    const vectors = await service.embedTexts(unknown, signal);
    vectors.forEach((vector, i) => known.set(unknown[i], vector));
    state.texts = lines.map((text) => ({ text, vector: known.get(text) }));
    find("query-note").textContent = "";
    render();
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) return explain(error);
    find("query-note").textContent = error.message;
  }
}

async function draw() {
  const samples = await drawSamples(SAMPLES, (presses += 1));
  if (!find("queries").value && !find("queries").disabled) {
    find("queries").value = [samples[0].name, samples[2].name, "a star"].join("\n");
    embedTexts();
  }
  addImages(samples);
}

function render() {
  find("empty").hidden = state.images.some((image) => image.done);
  for (const name of Object.keys(VIEWS)) {
    const tab = find(`tab-${name}`);
    tab.ariaSelected = String(name === view);
    tab.tabIndex = name === view ? 0 : -1;
    find(name).hidden = name !== view || !find("empty").hidden;
  }
  if (find("empty").hidden) VIEWS[view](state, service);
}

function turnTabs(event) {
  const names = Object.keys(VIEWS);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.type === "keydown" && !step) return;
  const clicked = names.indexOf(event.target.id.replace("tab-", ""));
  view = names[step ? (names.indexOf(view) + step + names.length) % names.length : clicked];
  render();
  find(`tab-${view}`).focus();
}

function takeFiles(event, files) {
  if (files.length === 0) return;
  event.preventDefault();
  addImages([...files].map((file) => ({ name: file.name, blob: file })));
}

function listen() {
  let typing;
  find("files").addEventListener("change", (event) => {
    takeFiles(event, event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  for (const kind of ["dragover", "drop", "dragleave"]) {
    document.addEventListener(kind, (event) => {
      if (kind === "dragover") event.preventDefault();
      find("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") takeFiles(event, event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => takeFiles(event, event.clipboardData.files));
  for (const [id, press] of Object.entries({ draw, clear, stop })) find(id).addEventListener("click", press);
  find("queries").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(embedTexts, TYPING_MS);
  });
  for (const name of Object.keys(VIEWS)) {
    for (const kind of ["click", "keydown"]) find(`tab-${name}`).addEventListener(kind, turnTabs);
  }
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    service.key = find("key").value;
    find("key").value = "";
    find("key-form").hidden = true;
    start();
  });
  listenToPatches();
  listenToVectors();
}

listen();
render();
start();
