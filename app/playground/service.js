// All that is said to the service, and nothing is said to anybody else.

const MOST_IMAGES = 16; // in one request, so that progress is seen
const PART_BYTES = 512; // of a form around one image, or of JSON around one text

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Service {
  key = "";
  model = null; // as /v1/models describes it

  constructor(onWait) {
    this.onWait = onWait; // is told in words why it takes longer
  }

  async describe() {
    this.model = (await this.#ask("v1/models", {})).data[0];
    return this.model;
  }

  // The first of `images` that make one request; a larger one than all limits goes alone, for the
  // service to say so.
  nextImages(images) {
    const { images: most, body_bytes: bytes } = this.model.limits;
    return takeBatch(images, (image) => image.blob.size, Math.min(most, MOST_IMAGES), bytes);
  }

  // -> an item for each image, with `embedding` or `patches`, or with `error`.
  async embedImages(images, output, signal) {
    const form = new FormData();
    for (const image of images) form.append("images", image.blob, "image");
    const options = { output, encoding: "base64", on_error: "partial", expect_space: this.model.space };
    for (const [name, value] of Object.entries(options)) form.append(name, value);
    return (await this.#ask("embed", { method: "POST", body: form, signal })).data;
  }

  // -> a vector for each text.
  async embedTexts(texts, signal) {
    const { texts: most, body_bytes: bytes } = this.model.limits;
    const sizeOf = (text) => new Blob([JSON.stringify(text)]).size;
    const vectors = [];
    while (vectors.length < texts.length) {
      const batch = takeBatch(texts.slice(vectors.length), sizeOf, most, bytes);
      const body = JSON.stringify({ texts: batch, encoding: "base64", expect_space: this.model.space });
      const headers = { "Content-Type": "application/json" };
      const answer = await this.#ask("embed/text", { method: "POST", headers, body, signal });
      vectors.push(...answer.data.map((item) => decodeVector(item.embedding)));
    }
    return vectors;
  }

  async #ask(path, request) {
    const headers = { ...request.headers };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    for (;;) {
      const answer = await fetch(path, { ...request, headers }).catch((error) => {
        throw request.signal?.aborted ? error : new ServiceError(0, "The service does not answer.");
      });
      const content = await answer.json().catch(() => ({}));
      if (answer.ok) return content;
      const words = content.error?.message ?? `The answer was HTTP status ${answer.status}.`;
      if (answer.status !== 429 && answer.status !== 503) throw new ServiceError(answer.status, words);
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      this.onWait(`${words} – trying again in ${seconds} s`);
      await pause(seconds, request.signal);
    }
  }
}

export function decodeVector(base64) {
  return new Float32Array(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)).buffer);
}

function takeBatch(items, sizeOf, most, mostBytes) {
  let bytes = 4 * PART_BYTES;
  let count = 0;
  while (count < Math.min(items.length, most)) {
    bytes += sizeOf(items[count]) + PART_BYTES;
    if (count > 0 && bytes > mostBytes) break;
    count += 1;
  }
  return items.slice(0, count);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
