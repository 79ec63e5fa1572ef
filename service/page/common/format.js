// Numbers, times, sizes and file names as text.

/** @param {number} score */
export function percent(score) {
  return `${(100 * score).toFixed(1)} %`;
}

/** @param {number} duration in milliseconds */
export function milliseconds(duration) {
  return duration < 1000 ? `${duration.toFixed(duration < 10 ? 1 : 0)} ms` : `${(duration / 1000).toFixed(2)} s`;
}

/**
 * A time as minutes and seconds, with hours from one hour on.
 *
 * @param {number} seconds
 * @param {number} [digits] after the decimal point
 */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const rounded = Math.round(seconds * unit) / unit; // before splitting, so that 59.96 becomes 1:00.0 and not 0:60.0
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor((rounded % 3600) / 60);
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, '0');
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

/**
 * A duration in seconds, from one minute on in minutes and seconds.
 *
 * @param {number} seconds
 */
export function durationText(seconds) {
  return seconds < 60 ? `${seconds.toFixed(2)} s` : clock(seconds, 1);
}

/**
 * The local time of day, for file names.
 *
 * @param {Date} date
 * @returns {string} such as 09-05-30
 */
export function timeOfDay(date) {
  return date.toTimeString().slice(0, 8).replaceAll(':', '-');
}

/** @param {number} bytes */
export function fileSize(bytes) {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * Seconds without the digits of rounding errors.
 *
 * @param {number} seconds
 */
export function roundSeconds(seconds) {
  return Number(seconds.toFixed(6));
}

/**
 * A file name without its extension.
 *
 * @param {string} name
 */
export function fileStem(name) {
  return name.replace(/\.[^.]*$/, '') || name;
}
