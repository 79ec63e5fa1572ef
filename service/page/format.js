// Numbers as people read them.

/** @param {number} score */
export function percent(score) {
  return `${(100 * score).toFixed(1)} %`;
}

/** @param {number} duration milliseconds */
export function milliseconds(duration) {
  return duration < 1000 ? `${duration.toFixed(duration < 10 ? 1 : 0)} ms` : `${(duration / 1000).toFixed(2)} s`;
}

/**
 * Minutes and seconds, and hours where there are any.
 *
 * @param {number} seconds
 * @param {number} [digits] after the point
 */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const rounded = Math.round(seconds * unit) / unit; // first, so that 59.96 is 1:00.0 and not 0:60.0
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor((rounded % 3600) / 60);
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, '0');
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

/**
 * How long something lasts: in seconds, from a minute on in minutes.
 *
 * @param {number} seconds
 */
export function length(seconds) {
  return seconds < 60 ? `${seconds.toFixed(2)} s` : clock(seconds, 1);
}

/** @param {number} seconds */
export function roundSeconds(seconds) {
  return Number(seconds.toFixed(6));
}
