// Where keys move the position to.

/**
 * @param {string} key
 * @param {object} now
 * @param {number} now.position seconds
 * @param {number} now.duration seconds
 * @param {number[] | null} now.starts when the segments begin, null where there are none
 * @returns {number | null} seconds, null where the key moves nothing
 */
export function keyTarget(key, { position, duration, starts }) {
  const step = Math.max(0.1, duration / 100);
  switch (key) {
    case 'ArrowLeft':
    case 'ArrowDown':
      return position - step;
    case 'ArrowRight':
    case 'ArrowUp':
      return position + step;
    case 'PageUp':
      return starts ? (starts.findLast((start) => start < position - 0.01) ?? position) : position - 10 * step;
    case 'PageDown':
      return starts ? (starts.find((start) => start > position + 0.01) ?? position) : position + 10 * step;
    case 'Home':
      return 0;
    case 'End':
      return duration;
    default:
      return null;
  }
}
