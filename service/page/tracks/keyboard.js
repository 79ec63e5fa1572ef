// Keys that move the position.

/**
 * The position that a key moves to.
 *
 * @param {string} key as in `KeyboardEvent.key`
 * @param {object} now
 * @param {number} now.position seconds
 * @param {number} now.duration seconds
 * @param {number[] | null} now.starts of the segments in seconds, null without segments
 * @returns {number | null} seconds, null for other keys; it may be before 0 or after `duration`
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
