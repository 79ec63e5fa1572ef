// Embeddings as NumPy arrays.

/**
 * Encode an array in NumPy's file format, version 1.0: a text header padded to 64 bytes, then the values.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 *
 * @param {Float32Array} values in row-major order
 * @param {number[]} shape
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function encodeNpy(values, shape) {
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': ${tuple}, }`;
  const preamble = 10; // magic string, version, length of the header
  const size = Math.ceil((preamble + header.length + 1) / 64) * 64;
  const file = new Uint8Array(size + 4 * values.length);
  file.set([0x93, ...new TextEncoder().encode('NUMPY'), 1, 0]);
  const view = new DataView(file.buffer);
  view.setUint16(8, size - preamble, true);
  file.set(new TextEncoder().encode(`${header.padEnd(size - preamble - 1)}\n`), preamble);
  values.forEach((value, index) => {
    view.setFloat32(size + 4 * index, value, true);
  });
  return file;
}

/**
 * Read an embedding of an answer: numbers, rows of numbers, or base64 of little-endian float32.
 *
 * @param {import('../api/http-api.js').Embedding} embedding
 * @returns {{values: Float32Array, shape: number[]}}
 */
export function readEmbedding(embedding) {
  if (!Array.isArray(embedding)) {
    return { values: fromBase64(embedding.data), shape: embedding.shape };
  }
  if (!Array.isArray(embedding[0])) {
    return { values: Float32Array.from(/** @type {number[]} */ (embedding)), shape: [embedding.length] };
  }
  const rows = /** @type {number[][]} */ (embedding);
  return { values: Float32Array.from(rows.flat()), shape: [rows.length, rows[0].length] };
}

/** @param {string} text */
function fromBase64(text) {
  const block = 4 * 8192; // decoded in blocks: embeddings of some minutes take tens of megabytes
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  for (let begin = 0, at = 0; begin < text.length; begin += block) {
    const decoded = atob(text.slice(begin, begin + block));
    for (let index = 0; index < decoded.length; index++) {
      bytes[at++] = decoded.charCodeAt(index);
    }
  }
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}
