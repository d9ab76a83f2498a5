// One vector: its numbers, and how to have them elsewhere.

import { find, make } from "./element.js";

const FIRST = 8;
let subjects = new Map(); // by what the list of choices calls them
let service = null;

export function showVectors({ images, texts, chosen, model }, ofService) {
  service = ofService;
  const ready = images.filter((image) => image.vector);
  const before = subjects.get(find("subject").value);
  subjects = new Map([...ready, ...texts].map((subject, i) => [String(i), subject]));
  const options = [...subjects].map(([value, { name, text }]) => make("option", { value }, name ?? `“${text}”`));
  find("subject").replaceChildren(...options);
  const wanted = before?.text && texts.includes(before) ? before : chosen;
  find("subject").value = [...subjects].find(([, subject]) => subject === wanted)?.[0] ?? "0";
  find("numbers").title = model.space;
  show();
}

function show() {
  const subject = subjects.get(find("subject").value);
  if (!subject) return;
  const { vector, url, name } = subject;
  const first = [...vector.slice(0, FIRST)].map((value) => value.toFixed(4)).join(", ");
  find("numbers").textContent = `[${first}, …] ${vector.length} numbers, length 1`;
  drawStrip(vector);
  const kind = document.querySelector("[name=form]:checked").value;
  find("code").textContent = { json: writeJson, curl: writeCurl, python: writePython }[kind](subject);
  find("copied").textContent = "";
  find("save").hidden = !url;
  if (url) Object.assign(find("save"), { href: url, download: name });
}

function drawStrip(vector) {
  const canvas = Object.assign(find("strip"), { width: vector.length });
  canvas.ariaLabel = `${vector.length} numbers as bars around zero`;
  const context = canvas.getContext("2d");
  const most = vector.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
  context.fillStyle = getComputedStyle(canvas).color;
  vector.forEach((value, i) => context.fillRect(i, 24, 1, (-value / most) * 24));
}

const writeJson = ({ vector }) => JSON.stringify([...vector].map((value) => Number(value.toPrecision(9))));
const address = (path) => new URL(path, document.baseURI).href;
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function writeCurl({ name, text }) {
  const key = service.key ? ' -H "Authorization: Bearer $KEY"' : "";
  return text
    ? `curl ${address("embed/text")}${key} --json ${quote(JSON.stringify({ texts: [text] }))}`
    : `curl ${address("embed")}${key} --data-binary ${quote(`@./${name}`)}`;
}

function writePython({ name, text }) {
  const key = service.key ? ',\n    "Authorization": "Bearer " + os.environ["KEY"],' : ",";
  const [path, type, body] = text
    ? ["embed/text", "application/json", `json.dumps({"texts": [${JSON.stringify(text)}]}).encode()`]
    : ["embed", "application/octet-stream", `Path(${JSON.stringify(name)}).read_bytes()`];
  return `import json${service.key ? ", os" : ""}\nfrom pathlib import Path\nfrom urllib.request import Request, urlopen

body = ${body}
headers = {
    "Content-Type": "${type}"${key}
}
with urlopen(Request("${address(path)}", body, headers)) as answer:
    vector = json.load(answer)["data"][0]["embedding"]
print(len(vector), vector[:${FIRST}])`;
}

async function copy() {
  const text = find("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page that did not come by https may only copy what is selected
    getSelection().selectAllChildren(find("code"));
    document.execCommand("copy");
  }
  find("copied").textContent = "Copied";
}

export function listenToVectors() {
  find("subject").addEventListener("change", show);
  find("forms").addEventListener("change", show);
  find("copy").addEventListener("click", copy);
}
