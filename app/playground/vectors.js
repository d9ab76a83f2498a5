// One vector: its numbers, and how to have them elsewhere.

import { find, make } from "./element.js";

const FIRST = 8;
const WRITERS = { json: writeJson, curl: writeCurl, python: writePython };
let subjects = []; // images and texts, as the list of choices has them
let page = {}; // the page's state when it was shown last, and its service

export function showVectors(state, service) {
  const before = state.chosen === page.chosen ? subjects[find("subject").value] : null;
  page = { ...state, service };
  subjects = [...state.images, ...state.texts].filter((subject) => subject.vector);
  const options = subjects.map(({ name, text }, value) => make("option", { value }, name ?? `“${text}”`));
  find("subject").replaceChildren(...options);
  const wanted = subjects.includes(before) ? before : state.chosen;
  find("subject").value = Math.max(0, subjects.indexOf(wanted));
  show();
}

function show() {
  const subject = subjects[find("subject").value];
  if (!subject) return;
  const { vector, url, name } = subject;
  const first = [...vector.slice(0, FIRST)].map((value) => value.toFixed(4)).join(", ");
  find("numbers").textContent = `[${first}, …]`;
  find("space").textContent = `${vector.length} numbers of length 1, in the space ${page.model.space}`;
  find("code").textContent = WRITERS[document.querySelector("[name=form]:checked").value](subject);
  find("copied").textContent = "";
  Object.assign(find("save"), { hidden: !url, href: url ?? "", download: name ?? "" });
}

const address = (path) => new URL(path, document.baseURI).href;
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function writeJson({ vector }) { // nine digits are all that a float32 has
  return `[${[...vector].map((value) => Number(value.toPrecision(9))).join(", ")}]`;
}

function writeCurl({ name, text }) {
  const key = page.service.key ? ' -H "Authorization: Bearer $KEY"' : "";
  if (!text) return `curl ${address("embed")}${key} --data-binary ${quote(`@./${name}`)}`;
  return `curl ${address("embed/text")}${key} --json ${quote(JSON.stringify({ texts: [text] }))}`;
}

function writePython({ name, text }) {
  const key = page.service.key ? ', "Authorization": "Bearer " + os.environ["KEY"]' : "";
  const [path, type, body] = text
    ? ["embed/text", "text/plain", `${JSON.stringify(text)}.encode()`]
    : ["embed", "application/octet-stream", `open(${JSON.stringify(name)}, "rb").read()`];
  return `import json, os
from urllib.request import Request, urlopen

headers = {"Content-Type": "${type}"${key}}
request = Request("${address(path)}", ${body}, headers)
vector = json.load(urlopen(request))["data"][0]["embedding"]
print(len(vector), vector[:${FIRST}])`;
}

function copy() { // what is selected: a page that did not come by https has no other way
  getSelection().selectAllChildren(find("code"));
  find("copied").textContent = document.execCommand("copy") ? "Copied" : "Selected: copy it with the keyboard";
}

for (const id of ["subject", "forms"]) find(id).addEventListener("change", show);
find("copy").addEventListener("click", copy);
