// Vectors of images and texts with the AI SDK: node ai_sdk.mjs URL KEY IMAGE...
import { readFile } from "node:fs/promises";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany, wrapEmbeddingModel } from "ai";

const [url, key, ...paths] = process.argv.slice(2);
const images = await Promise.all(paths.map((path) => readFile(path)));
const dataUris = images.map((image) => `data:;base64,${image.toString("base64")}`);
const text = "a red bicycle";

const siglip = createOpenAICompatible({ name: "siglip", baseURL: `${url}/v1`, apiKey: key });
const listed = await fetch(`${url}/v1/models`, { headers: { Authorization: `Bearer ${key}` } });
const { id, dim } = (await listed.json()).data[0];
const model = siglip.embeddingModel(id);
// By default it sends 2,048 at a time, more than the service takes.
const inParts = wrapEmbeddingModel({
  model,
  middleware: { specificationVersion: "v4", overrideMaxEmbeddingsPerCall: () => 32 },
});

const options = () => ({ model, maxRetries: 0, abortSignal: AbortSignal.timeout(30_000) });
const refusal = (pending) =>
  pending.then(
    () => "none",
    (error) => `${error.statusCode}: ${error.message}`,
  );
const own = (settings) => ({ providerOptions: { siglip: settings } });

const [one, image, mixed, many] = await Promise.all([
  embed({ ...options(), value: text }),
  embed({ ...options(), value: dataUris[0] }),
  embedMany({ ...options(), values: [text, ...dataUris], ...own({ dimensions: dim, user: "u" }) }),
  embedMany({ ...options(), model: inParts, values: Array(100).fill(text) }),
]);
console.log(
  JSON.stringify({
    "one text": [one.embedding],
    "one image": [image.embedding],
    "a text and images": mixed.embeddings,
    "tokens of one text": one.usage.tokens,
    "a hundred texts": many.embeddings,
    "too many texts": await refusal(embedMany({ ...options(), values: Array(300).fill(text) })),
    "no image": await refusal(embed({ ...options(), value: "data:image/png;base64,AAAA" })),
    dimensions: await refusal(embed({ ...options(), value: text, ...own({ dimensions: 7 }) })),
    "another model": await refusal(
      embed({ ...options(), model: siglip.embeddingModel("text-embedding-3-small"), value: text }),
    ),
  }),
);
