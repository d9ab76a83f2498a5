// Vectors of images and a text with Node's own fetch: node fetch.mjs URL KEY IMAGE...
import { readFile } from "node:fs/promises";

const [url, key, ...paths] = process.argv.slice(2);
const images = await Promise.all(paths.map((path) => readFile(path)));
const dataUris = images.map((image) => `data:;base64,${image.toString("base64")}`);
const text = "a red bicycle";

const post = (path, body, headers = {}) =>
  fetch(`${url}${path}`, {
    method: "POST",
    body,
    headers: { Authorization: `Bearer ${key}`, ...headers },
    signal: AbortSignal.timeout(30_000),
  });

async function vectors(pending) {
  const answer = await pending;
  const content = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status}: ${content.error.message}`);
  return content.data.map((item) => item.embedding);
}

const postJson = (path, content) =>
  post(path, JSON.stringify(content), { "Content-Type": "application/json" });

const form = new FormData();
for (const image of images) form.append("images", new Blob([image]), "image");

const binary = await post("/embed", images[0], { Accept: "application/octet-stream" });
const values = new Float32Array(await binary.arrayBuffer());

console.log(
  JSON.stringify({
    "one image as the body": await vectors(post("/embed", images[0])),
    "one image as float32": [[...values]],
    "images in a form": await vectors(post("/embed", form)),
    "images in JSON": await vectors(postJson("/embed", { images: dataUris })),
    "one text": await vectors(postJson("/embed/text", { text })),
    "one text as the body": await vectors(post("/embed/text", text)),
    "a text and images": await vectors(postJson("/v1/embeddings", { input: [text, ...dataUris] })),
    "no image": await vectors(post("/embed", "no image")).catch((error) => error.message),
    "token ids": await vectors(postJson("/v1/embeddings", { input: [[1, 2]] })).catch(
      (error) => error.message,
    ),
  }),
);
