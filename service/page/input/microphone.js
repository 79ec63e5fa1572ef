// Access to the microphone, the reasons why it may fail, and the level meter.

import { find } from '../common/dom.js';

/** The level that the meter shows as zero, in dB relative to full scale. */
const MIN_DECIBELS = -60;

/** @typedef {import('../i18n/language.js').Key} Key */

/**
 * Why this page cannot use a microphone at all; null if it can.
 *
 * @returns {Key | null}
 */
export function microphoneUnavailable() {
  if (!isSecureContext) {
    return 'record.insecure';
  }
  return typeof navigator.mediaDevices?.getUserMedia === 'function' ? null : 'record.unsupported';
}

/** Open the microphone; the browser may ask the user for permission. */
export function openMicrophone() {
  return navigator.mediaDevices.getUserMedia({
    // These filters are made for calls and remove what the model needs.
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
}

/**
 * Close the microphone, so that the browser no longer shows it as in use.
 *
 * @param {MediaStream} stream
 */
export function closeMicrophone(stream) {
  for (const track of stream.getTracks()) {
    track.stop();
  }
}

/**
 * The message for an error of `openMicrophone`.
 *
 * @param {unknown} error
 * @returns {Key}
 */
export function microphoneError(error) {
  const name = error instanceof DOMException ? error.name : '';
  if (name === 'NotAllowedError' || name === 'SecurityError') {
    return 'record.denied';
  }
  return name === 'NotFoundError' || name === 'OverconstrainedError' ? 'record.missing' : 'record.failed';
}

/**
 * Set a level meter.
 *
 * @param {string} id of the meter's bar
 * @param {number | null} power mean of the squared samples, null to clear the meter
 */
export function showLevel(id, power) {
  const decibels = 10 * Math.log10((power ?? 0) + 1e-12);
  const level = Math.min(1, Math.max(0, 1 - decibels / MIN_DECIBELS));
  find(id, HTMLElement).style.setProperty('clip-path', `inset(0 ${(100 * (1 - level)).toFixed(1)}% 0 0)`);
}
