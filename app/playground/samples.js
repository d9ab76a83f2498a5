// Drawings to try things with: coloured shapes on coloured grounds, and captions that are true.

const SIDE = 224;
const COLOURS = {
  red: "#d62828", orange: "#f77f00", yellow: "#fcd116", green: "#2a9d43",
  blue: "#1d5fd1", purple: "#8338ec", white: "#ffffff", black: "#111111",
};
const GROUNDS = { white: "#ffffff", grey: "#9a9a9a", pink: "#f7b2c4", brown: "#7a4b2a", black: "#111111" };
const SIZES = { small: 0.225, large: 0.4 }; // diameters, in shares of the side
const SHAPES = { // each within a square of side 1 around the origin
  circle: (path) => path.arc(0, 0, 0.5, 0, 7),
  ring: (path) => (path.arc(0, 0, 0.5, 0, 7), path.closePath(), path.arc(0, 0, 0.23, 7, 0, true)),
  square: (path) => path.rect(-0.44, -0.44, 0.88, 0.88),
  triangle: (path) => drawPolygon(path, [[0, -0.47], [0.5, 0.43], [-0.5, 0.43]]),
  cross: (path) => (path.rect(-0.15, -0.5, 0.3, 1), path.rect(-0.5, -0.15, 1, 0.3)),
  star: (path) => drawPolygon(path, Array.from({ length: 10 }, (_, i) => {
    const [angle, radius] = [(i * Math.PI) / 5, i % 2 ? 0.21 : 0.5];
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  })),
};

// -> `count` of {name, blob}, about every third with two shapes: the same for the same seed.
export function drawSamples(count, seed) {
  seed = (seed * 2654435761) % 2 ** 32; // neighbours are sent far from each other
  const random = () => (seed = (seed * 1664525 + 1013904223) % 2 ** 32) / 2 ** 32;
  const scenes = new Map(); // by their captions, none of which comes twice
  while (scenes.size < count) {
    const scene = imagine(random, scenes.size % 3 === 2);
    scenes.set(scene.name, scene);
  }
  return Promise.all([...scenes.values()].map(draw));
}

function imagine(random, hasTwo) {
  const pick = (choices) => choices[Math.floor(random() * choices.length)];
  const ground = pick(Object.keys(GROUNDS));
  const colours = Object.keys(COLOURS).filter((colour) => colour !== ground);
  const [one, other] = [0, 1].map(() => (
    { size: pick(Object.keys(SIZES)), colour: pick(colours), shape: pick(Object.keys(SHAPES)) }));
  if (hasTwo && (other.colour === one.colour || other.shape === one.shape)) return imagine(random, hasTwo);
  const relation = pick(["left of", "above"]);
  const stray = () => (random() - 0.5) * 0.06;
  const [alone, place] = [[pick([-1, 0, 1]) / 4 + stray(), pick([-1, 0, 1]) / 4 + stray()], [stray() - 0.25, stray()]];
  if (relation === "above") place.reverse();
  if (!hasTwo) return { name: `${describe(one)} on a ${ground} ground`, ground, shapes: [[one, alone]] };
  const shapes = [[one, place], [other, place.map((value) => -value)]];
  return { name: `${describe(one)} ${relation} ${describe(other)}`, ground, shapes };
}

async function draw({ name, ground, shapes }) {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d");
  context.fillStyle = GROUNDS[ground];
  context.fillRect(0, 0, SIDE, SIDE);
  for (const [{ size, colour, shape }, [x, y]] of shapes) {
    const diameter = SIZES[size] * SIDE;
    context.setTransform(diameter, 0, 0, diameter, (0.5 + x) * SIDE, (0.5 + y) * SIDE);
    context.fillStyle = COLOURS[colour];
    context.beginPath();
    SHAPES[shape](context);
    context.fill();
  }
  return { name, blob: await canvas.convertToBlob() };
}

const describe = ({ size, colour, shape }) => `a ${size} ${colour} ${shape}`;
const drawPolygon = (path, corners) => corners.forEach(([x, y]) => path.lineTo(x, y));
