// Drawings to try things with: coloured shapes on coloured grounds, and captions that are true.

const SIDE = 224;
const COLOURS = {
  red: "#d62828", orange: "#f77f00", yellow: "#fcd116", green: "#2a9d43",
  blue: "#1d5fd1", purple: "#8338ec", white: "#ffffff", black: "#111111",
};
const GROUNDS = { white: "#ffffff", grey: "#9a9a9a", pink: "#f7b2c4", brown: "#7a4b2a", black: "#111111" };
const SIZES = { small: 0.2, large: 0.37 }; // diameters, in shares of the side
const SHAPES = {
  // Each draws into a square of side 1 around the origin.
  circle: (path) => path.arc(0, 0, 0.5, 0, 2 * Math.PI),
  ring: (path) => (path.arc(0, 0, 0.5, 0, 2 * Math.PI), path.arc(0, 0, 0.23, 0, 2 * Math.PI)),
  square: (path) => path.rect(-0.44, -0.44, 0.88, 0.88),
  triangle: (path) => drawPolygon(path, [[0, -0.47], [0.5, 0.43], [-0.5, 0.43]]),
  cross: (path) => drawPolygon(path, [
    [-0.15, -0.5], [0.15, -0.5], [0.15, -0.15], [0.5, -0.15], [0.5, 0.15], [0.15, 0.15],
    [0.15, 0.5], [-0.15, 0.5], [-0.15, 0.15], [-0.5, 0.15], [-0.5, -0.15], [-0.15, -0.15]]),
  star: (path) => drawPolygon(path, Array.from({ length: 10 }, (_, i) => {
    const [angle, radius] = [(i * Math.PI) / 5, i % 2 ? 0.21 : 0.5];
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  })),
};

// -> `count` of {name, blob}: the same for the same seed.
export function drawSamples(count, seed) {
  const random = makeRandom(seed);
  return Promise.all(Array.from({ length: count }, (_, i) => drawScene(random, i % 3 === 2)));
}

async function drawScene(random, hasTwo) {
  const pick = (choices) => choices[Math.floor(random() * choices.length)];
  const ground = pick(Object.keys(GROUNDS));
  const colours = Object.keys(COLOURS).filter((colour) => colour !== ground);
  const draw = () => ({ size: pick(Object.keys(SIZES)), colour: pick(colours), shape: pick(Object.keys(SHAPES)) });
  const [one, other] = [draw(), draw()];
  if (hasTwo && (other.colour === one.colour || other.shape === one.shape)) return drawScene(random, hasTwo);
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d");
  context.fillStyle = GROUNDS[ground];
  context.fillRect(0, 0, SIDE, SIDE);
  const [near, beside] = [0.24 + random() * 0.03, (random() - 0.5) * 0.15];
  const relation = pick(["left of", "above"]);
  const place = (side) => (relation === "left of" ? [0.5 + side * near, 0.5 + beside] : [0.5 + beside, 0.5 + side * near]);
  paint(context, one, hasTwo ? place(-1) : [0.3 + random() * 0.4, 0.3 + random() * 0.4]);
  if (hasTwo) paint(context, other, place(1));
  const caption = hasTwo ? `${describe(one)} ${relation} ${describe(other)}` : `${describe(one)} on a ${ground} ground`;
  return { name: caption, blob: await canvas.convertToBlob({ type: "image/png" }) };
}

function paint(context, { size, colour, shape }, [x, y]) {
  context.save();
  context.translate(x * SIDE, y * SIDE);
  context.scale(SIZES[size] * SIDE, SIZES[size] * SIDE);
  context.fillStyle = COLOURS[colour];
  context.beginPath();
  SHAPES[shape](context);
  context.fill("evenodd");
  context.restore();
}

const describe = ({ size, colour, shape }) => `a ${size} ${colour} ${shape}`;

function drawPolygon(path, corners) {
  for (const [x, y] of corners) path.lineTo(x, y);
}

// Mulberry32: small, and even enough for drawings.
function makeRandom(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let bits = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 4294967296;
  };
}
