// One image, patch by patch: what the model sees there, and what it is like.

import { find, make } from "./element.js";
import { decodeVector } from "./service.js";
import { dot, principalComponents, spread, toUnit } from "./similarity.js";

const SIDE = 480; // pixels of a drawing, about
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
let board = null; // what is shown, as `layOut` makes it
let cell = 0; // the patch that is chosen
let texts = [];

export async function showPatches(state, service) {
  texts = state.texts;
  listOverlays();
  const image = state.chosen;
  if (image && board?.image === image) return draw();
  find("patch-view").hidden = true;
  find("patch-state").textContent = image ? "Asking for the patches …" : "";
  if (!image) return;
  const laidOut = await (image.board ??= layOut(image, service)).catch((error) => error);
  if (state.chosen !== image) return; // another was chosen meanwhile
  const failed = laidOut instanceof Error;
  if (failed) image.board = null;
  find("patch-state").textContent = failed ? laidOut.message : "";
  find("patch-view").hidden = failed;
  board = failed ? null : laidOut;
  if (board) choose(board.rows / 2, board.columns / 2);
}

async function layOut(image, service) {
  const item = image.patches ? image : (await service.embedImages([image], "patches"))[0];
  if (item.error) throw new Error(item.error.message);
  const { grid: [rows, columns], shape: [count, dim], embedding } = item.patches;
  const values = decodeVector(embedding);
  const vectors = Array.from({ length: count }, (_, i) => toUnit(values.subarray(i * dim, (i + 1) * dim)));
  const channels = principalComponents(vectors, 3).map(spread);
  const colours = vectors.map((_, i) => `rgb(${channels.map((of) => Math.round(255 * of[i])).join(" ")})`);
  const picture = await createImageBitmap(image.blob).catch(() => null); // of a format not shown here
  const side = Math.max(4, Math.round(SIDE / Math.max(rows, columns)));
  return { image, rows, columns, side, picture, vectors, colours };
}

function listOverlays() {
  const before = find("overlay").value;
  const options = texts.map(({ text }) => make("option", { value: text }, `“${text}”`));
  find("overlay").replaceChildren(make("option", { value: "" }, "the chosen patch"), ...options);
  find("overlay").value = texts.some(({ text }) => text === before) ? before : "";
}

function draw() {
  const { image, rows, columns, side, picture, vectors, colours } = board;
  const towards = texts.find(({ text }) => text === find("overlay").value)?.vector ?? vectors[cell];
  const cosines = vectors.map((vector) => dot(vector, towards));
  const shadows = spread(cosines).map((light) => `rgb(10 12 20 / ${0.8 * (1 - light)})`);
  for (const [id, fills] of [["seen", shadows], ["components", colours]]) {
    const canvas = Object.assign(find(id), { width: columns * side, height: rows * side });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; // what the service puts under transparent images
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (id === "seen" && picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    fills.forEach((fill, i) => {
      context.fillStyle = fill;
      context.fillRect((i % columns) * side, Math.floor(i / columns) * side, side, side);
    });
    for (const [colour, inset] of [["#000", 1], ["#fff", 3]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: 2 });
      const [x, y] = [(cell % columns) * side + inset, Math.floor(cell / columns) * side + inset];
      context.strokeRect(x, y, side - 2 * inset, side - 2 * inset);
    }
  }
  find("board").ariaLabel = `${rows} by ${columns} patches of ${image.name}`;
  find("rough").hidden = find("overlay").value === "";
  find("patch-reading").textContent = read(cosines);
}

function read(cosines) {
  const isText = find("overlay").value !== "";
  const name = (i) => `row ${Math.floor(i / board.columns) + 1}, column ${(i % board.columns) + 1}`;
  const others = cosines.map((cosine, i) => (i === cell && !isText ? -Infinity : cosine)); // or is itself
  const best = others.indexOf(others.reduce((a, b) => Math.max(a, b)));
  const here = `${name(cell)}${isText ? ` (cosine ${cosines[cell].toFixed(3)})` : ""}`;
  return `${here} · most alike: ${name(best)} (cosine ${cosines[best].toFixed(3)})`;
}

function choose(row, column) {
  const clamp = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);
  cell = clamp(row, board.rows) * board.columns + clamp(column, board.columns);
  draw();
}

find("overlay").addEventListener("change", draw);
find("board").addEventListener("keydown", (event) => {
  if (!STEPS[event.key]) return;
  event.preventDefault();
  const [down, right] = STEPS[event.key];
  choose(Math.floor(cell / board.columns) + down, (cell % board.columns) + right);
});
for (const kind of ["pointermove", "pointerdown"]) {
  find("board").addEventListener(kind, ({ target, offsetX, offsetY }) => {
    if (target.tagName !== "CANVAS") return;
    choose((offsetY / target.clientHeight) * board.rows, (offsetX / target.clientWidth) * board.columns);
  });
}
