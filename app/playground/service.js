// All that is said to the service; nothing is said to anybody else.

const MOST_IMAGES = 16; // in one request, so that progress is seen
const PART_BYTES = 512; // of a form around one image, or of JSON around one text

export class Service {
  key = "";
  model = null; // as /v1/models describes it
  onWait = () => {}; // is told in words why it takes longer

  describe = async () => (this.model = (await this.#ask("v1/models", {})).data[0]);

  // The first of `images` that make one request; what is over the limits goes alone, to be refused.
  takeBatch(images) {
    const { images: most, body_bytes: mostBytes } = this.model.limits;
    return takeBatch(images, (image) => image.blob.size, Math.min(most, MOST_IMAGES), mostBytes);
  }

  // -> an item for each image, with `embedding` or `patches`, or with `error`.
  async embedImages(images, output, signal) {
    const body = new FormData();
    for (const image of images) body.append("images", image.blob, "image");
    const options = { output, encoding: "base64", on_error: "partial", expect_space: this.model.space };
    for (const [name, value] of Object.entries(options)) body.append(name, value);
    return (await this.#ask("embed", { method: "POST", body, signal })).data;
  }

  // -> a vector for each text.
  async embedTexts(texts, signal) {
    const { texts: most, body_bytes: mostBytes } = this.model.limits;
    const vectors = [];
    while (vectors.length < texts.length) {
      const rest = texts.slice(vectors.length);
      const batch = takeBatch(rest, (text) => 6 * text.length, most, mostBytes); // "\u0000" at worst
      const body = JSON.stringify({ texts: batch, encoding: "base64", expect_space: this.model.space });
      const headers = { "Content-Type": "application/json" };
      const answer = await this.#ask("embed/text", { method: "POST", headers, body, signal });
      vectors.push(...answer.data.map((item) => decodeVector(item.embedding)));
    }
    return vectors;
  }

  async #ask(path, request) {
    const headers = { ...request.headers, ...(this.key && { Authorization: `Bearer ${this.key}` }) };
    for (;;) {
      const answer = await fetch(path, { ...request, headers }).catch((error) => {
        throw request.signal?.aborted ? error : new Error("The service does not answer.");
      });
      const content = await answer.json().catch(() => ({}));
      if (answer.ok) return content;
      const words = content.error?.message ?? `HTTP status ${answer.status}`;
      if (![429, 503].includes(answer.status)) throw Object.assign(new Error(words), { status: answer.status });
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      this.onWait(`${words}: trying again in ${seconds} s`);
      await new Promise((goOn) => setTimeout(goOn, seconds * 1000)); // if aborted meanwhile, fetch says so
    }
  }
}

export function decodeVector(base64) {
  return new Float32Array(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)).buffer);
}

function takeBatch(items, sizeOf, most, mostBytes) {
  let bytes = 4 * PART_BYTES;
  const first = items.slice(0, most);
  const end = first.findIndex((item, i) => (bytes += sizeOf(item) + PART_BYTES) > mostBytes && i > 0);
  return end < 0 ? first : first.slice(0, end);
}
