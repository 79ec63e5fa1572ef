// Getting at the microphone, why it does not work where it does not, and how loud it is.

import { find } from './dom.js';

/** Quieter than this many decibels below full scale is shown as nothing. */
const QUIETEST = -60;

/** @typedef {import('./language.js').Key} Key */

/**
 * Why this page cannot use a microphone at all, null where it can.
 *
 * @returns {Key | null}
 */
export function microphoneImpossible() {
  if (!isSecureContext) {
    return 'record.insecure';
  }
  return typeof navigator.mediaDevices?.getUserMedia === 'function' ? null : 'record.unsupported';
}

/** Ask the browser for the microphone, which may ask the person. */
export function openMicrophone() {
  return navigator.mediaDevices.getUserMedia({
    // What makes calls pleasant takes away what the model listens for.
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
}

/**
 * Let go of it, so that the browser no longer shows that it is in use.
 *
 * @param {MediaStream} stream
 */
export function closeMicrophone(stream) {
  for (const track of stream.getTracks()) {
    track.stop();
  }
}

/**
 * Why the microphone was not to be had.
 *
 * @param {unknown} error
 * @returns {Key}
 */
export function explainMicrophone(error) {
  const name = error instanceof DOMException ? error.name : '';
  if (name === 'NotAllowedError' || name === 'SecurityError') {
    return 'record.denied';
  }
  return name === 'NotFoundError' || name === 'OverconstrainedError' ? 'record.missing' : 'record.failed';
}

/**
 * Show how loud it is.
 *
 * @param {string} id of the bar
 * @param {number | null} power mean of the squared samples, null where nothing is heard
 */
export function showLevel(id, power) {
  const decibels = 10 * Math.log10((power ?? 0) + 1e-12);
  const level = Math.min(1, Math.max(0, 1 - decibels / QUIETEST));
  find(id, HTMLElement).style.setProperty('clip-path', `inset(0 ${(100 * (1 - level)).toFixed(1)}% 0 0)`);
}
