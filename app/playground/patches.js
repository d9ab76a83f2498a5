// One image, patch by patch: what the model sees there, and what it is like.

import { find, make } from "./element.js";
import { decodeVector } from "./service.js";
import { dot, principalComponents, spread, toUnit } from "./similarity.js";

const SIDE = 480; // of the drawings, about
let board = null; // {image, rows, columns, side, picture, vectors, colours} of what is shown
let cell = null; // the patch that is chosen
let texts = [];

export async function showPatches(state, service) {
  texts = state.texts;
  const image = state.chosen;
  listOverlays();
  if (board?.image === image) return draw();
  find("patch-view").hidden = true;
  find("patch-state").textContent = image ? "Asking for the patches …" : "";
  if (!image) return;
  try {
    image.patches ??= await askForPatches(image, service);
    const laidOut = await layOut(image);
    if (state.chosen !== image) return; // another was chosen meanwhile
    [board, cell] = [laidOut, null];
    find("patch-state").textContent = "";
    find("patch-view").hidden = false;
    draw();
  } catch (error) {
    if (state.chosen === image) find("patch-state").textContent = error.message;
  }
}

async function askForPatches(image, service) {
  const [item] = await service.embedImages([image], "patches");
  if (item.error) throw new Error(item.error.message);
  return item.patches;
}

async function layOut(image) {
  const { grid: [rows, columns], shape: [count, dim], embedding } = image.patches;
  const values = decodeVector(embedding);
  const vectors = Array.from({ length: count }, (_, i) => toUnit(values.subarray(i * dim, (i + 1) * dim)));
  const channels = principalComponents(vectors, 3).map(spread);
  const colours = vectors.map((_, i) => `rgb(${channels.map((of) => Math.round(255 * of[i])).join(" ")})`);
  const picture = await createImageBitmap(image.blob).catch(() => null); // of a format it cannot show
  const side = Math.max(4, Math.round(SIDE / Math.max(rows, columns)));
  return { image, rows, columns, side, picture, vectors, colours };
}

function listOverlays() {
  const overlay = find("overlay");
  const before = overlay.value;
  overlay.replaceChildren(
    make("option", { value: "" }, "the chosen patch"),
    ...texts.map(({ text }) => make("option", { value: text }, text)));
  overlay.value = texts.some(({ text }) => text === before) ? before : "";
}

// Cosines of all patches to what the overlay is of, or null where it is of nothing yet.
function measure() {
  const text = texts.find(({ text }) => text === find("overlay").value);
  const towards = text ? text.vector : board.vectors[cell];
  if (!towards || towards.length !== board.vectors[0].length) return null;
  return board.vectors.map((vector) => dot(vector, towards));
}

function draw() {
  const { image, rows, columns, side, picture, colours } = board;
  const cosines = measure();
  const lights = cosines && spread(cosines);
  for (const id of ["seen", "components"]) {
    const canvas = Object.assign(find(id), { width: columns * side, height: rows * side });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; // what the service puts under transparent images
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (id === "seen" && picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    colours.forEach((colour, i) => {
      const [x, y] = [(i % columns) * side, Math.floor(i / columns) * side];
      context.fillStyle = id === "components" ? colour : `rgb(10 12 20 / ${lights ? 0.8 * (1 - lights[i]) : 0})`;
      context.fillRect(x, y, side, side);
    });
    if (cell !== null) outline(context, (cell % columns) * side, Math.floor(cell / columns) * side, side);
  }
  find("seen").ariaLabel = `${image.name}, squashed to ${rows} by ${columns} patches`;
  find("components").ariaLabel = `Colours of ${rows} by ${columns} patches`;
  find("board").ariaLabel = `${rows} by ${columns} patches of ${image.name}`;
  find("rough").hidden = find("overlay").value === "";
  find("patch-reading").textContent = cosines ? read(cosines) : "";
}

function outline(context, x, y, side) {
  for (const [colour, inset] of [["#000", 1], ["#fff", 3]]) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.strokeRect(x + inset, y + inset, side - 2 * inset, side - 2 * inset);
  }
}

function read(cosines) {
  const text = find("overlay").value;
  const name = (i) => `row ${Math.floor(i / board.columns) + 1}, column ${(i % board.columns) + 1}`;
  const others = cosines.map((cosine, i) => (i === cell && !text ? -Infinity : cosine));
  const best = others.indexOf(others.reduce((a, b) => Math.max(a, b), -Infinity));
  const here = cell === null ? "" : `${name(cell)}${text ? `: ${cosines[cell].toFixed(3)}` : ""} · `;
  return `${here}most alike: ${name(best)} (cosine ${cosines[best].toFixed(3)})`;
}

function choose(row, column) {
  const clamp = (value, most) => Math.min(Math.max(value, 0), most - 1);
  cell = clamp(row, board.rows) * board.columns + clamp(column, board.columns);
  draw();
}

export function listenToPatches() {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  find("overlay").addEventListener("change", draw);
  find("board").addEventListener("keydown", (event) => {
    if (!steps[event.key]) return;
    event.preventDefault();
    const middle = Math.floor(board.rows / 2) * board.columns + Math.floor(board.columns / 2);
    const from = cell ?? middle;
    const [down, right] = cell === null ? [0, 0] : steps[event.key];
    choose(Math.floor(from / board.columns) + down, (from % board.columns) + right);
  });
  for (const kind of ["pointermove", "pointerdown"]) {
    find("board").addEventListener(kind, ({ target, offsetX, offsetY }) => {
      if (target.tagName !== "CANVAS") return;
      choose(
        Math.floor((offsetY / target.clientHeight) * board.rows),
        Math.floor((offsetX / target.clientWidth) * board.columns));
    });
  }
}
