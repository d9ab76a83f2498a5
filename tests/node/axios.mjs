// Vectors of images and a text with axios: node axios.mjs URL KEY IMAGE...
import { readFile } from "node:fs/promises";

import axios from "axios";

const [url, key, ...paths] = process.argv.slice(2);
const images = await Promise.all(paths.map((path) => readFile(path)));
const dataUris = images.map((image) => `data:;base64,${image.toString("base64")}`);
const text = "a red bicycle";

const service = axios.create({
  baseURL: url,
  headers: { Authorization: `Bearer ${key}` },
  timeout: 30_000,
});
const vectors = async (pending) => (await pending).data.data.map((item) => item.embedding);
const refusal = (pending) =>
  pending.then(
    () => "none",
    ({ response }) => `${response.status}: ${response.data.error.message}`,
  );

const form = new FormData();
for (const image of images) form.append("images", new Blob([image]), "image");
const mixed = { input: [text, ...dataUris] };
const base64 = await vectors(service.post("/v1/embeddings", { ...mixed, encoding_format: "base64" }));
const binary = await service.post("/embed", images[0], {
  headers: { Accept: "application/octet-stream" },
  responseType: "arraybuffer",
});

// Little-endian float32, copied to where a Float32Array may begin.
const numbers = (bytes) => [...new Float32Array(new Uint8Array(bytes).buffer)];

console.log(
  JSON.stringify({
    "one image as the body": await vectors(service.post("/embed", images[0])),
    "one image as float32": [numbers(binary.data)],
    "images in a form": await vectors(service.postForm("/embed", { images })),
    "images in a form of the platform": await vectors(service.post("/embed", form)),
    "images in JSON": await vectors(service.post("/embed", { images: dataUris })),
    "one text": await vectors(service.post("/embed/text", { text })),
    "a text and images": await vectors(service.post("/v1/embeddings", mixed)),
    "a text and images in base64": base64.map((vector) => numbers(Buffer.from(vector, "base64"))),
    "no image": await refusal(service.post("/embed", "no image")),
    "token ids": await refusal(service.post("/v1/embeddings", { input: [[1, 2]] })),
  }),
);
