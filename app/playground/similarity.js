// What is computed of vectors here; vectors are Float32Arrays.

export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
  return sum;
}

export function toUnit(vector) {
  const length = Math.sqrt(dot(vector, vector)) || 1;
  return vector.map((value) => value / length);
}

// SigLIP's probability that a text fits an image; null where the checkpoint does not say how.
export function probability(cosine, model) {
  if (model.logit_scale === null || model.logit_bias === null) return null;
  return 1 / (1 + Math.exp(-(Math.exp(model.logit_scale) * cosine + model.logit_bias)));
}

// Where a value is between the least and the greatest of its list, 0 to 1.
export function spread(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return values.map((value) => (value - least) / (most - least || 1));
}

// Coordinates of rows along their first principal components: `count` lists of rows.length.
// Power iteration on the covariance, which is never formed; each next component is kept
// orthogonal to those before it.
export function principalComponents(rows, count, iterations = 30) {
  const mean = new Float32Array(rows[0].length);
  for (const row of rows) row.forEach((value, i) => (mean[i] += value / rows.length));
  const centred = rows.map((row) => row.map((value, i) => value - mean[i]));
  const axes = [];
  for (let component = 0; component < count; component += 1) {
    let axis = mean.map((_, i) => Math.sin(i + 1 + component)); // any start that is not special
    for (let step = 0; step < iterations; step += 1) {
      const next = new Float32Array(axis.length);
      for (const row of centred) addScaled(next, row, dot(row, axis));
      for (const found of axes) addScaled(next, found, -dot(next, found));
      axis = toUnit(next);
    }
    axes.push(axis);
  }
  return axes.map((axis) => centred.map((row) => dot(row, axis)));
}

function addScaled(sum, vector, scale) {
  for (let i = 0; i < sum.length; i += 1) sum[i] += scale * vector[i];
}
