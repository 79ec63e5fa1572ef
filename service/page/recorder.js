// Recording with the microphone: a level meter, the time, and why it does not work where it does not.

import { find } from './dom.js';
import { message } from './language.js';
import { showNotice } from './problems.js';

/** Seconds after which a recording ends by itself; the service takes five minutes unless it is told otherwise. */
const LONGEST = 300;
/** Quieter than this many decibels below full scale is shown as nothing. */
const QUIETEST = -60;

const EXTENSIONS = /** @type {Record<string, string>} */ ({
  'audio/webm': 'webm',
  'audio/ogg': 'ogg',
  'audio/mp4': 'm4a',
});

/** @param {(file: File) => void} take called with each recording */
export function startRecorder(take) {
  const start = find('record', HTMLButtonElement);
  const choose = find('choose', HTMLButtonElement);
  const panel = find('recorder', HTMLElement);
  const stop = find('record-stop', HTMLButtonElement);
  const discard = find('record-discard', HTMLButtonElement);
  const notice = find('record-notice', HTMLElement);

  start.addEventListener('click', async () => {
    const reason = impossible();
    showNotice(notice, reason ?? 'record.asking', { origin: location.origin });
    if (reason) {
      return;
    }
    start.disabled = true;
    let file = null;
    try {
      const stream = await navigator.mediaDevices.getUserMedia({
        // What makes calls pleasant takes away what the model listens for.
        audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
      showNotice(notice, null);
      panel.hidden = false;
      choose.hidden = start.hidden = true;
      stop.focus();
      file = await record(stream, stop, discard);
      if (file?.size === 0) {
        file = null;
        showNotice(notice, 'record.empty');
      }
    } catch (error) {
      showNotice(notice, explain(error));
    }
    panel.hidden = true;
    choose.hidden = start.hidden = start.disabled = false;
    start.focus();
    if (file) {
      take(file);
    }
  });
}

function impossible() {
  if (!isSecureContext) {
    return 'record.insecure';
  }
  return typeof navigator.mediaDevices?.getUserMedia === 'function' && 'MediaRecorder' in window
    ? null
    : 'record.unsupported';
}

/** @param {unknown} error */
function explain(error) {
  const name = error instanceof DOMException ? error.name : '';
  if (name === 'NotAllowedError' || name === 'SecurityError') {
    return 'record.denied';
  }
  return name === 'NotFoundError' || name === 'OverconstrainedError' ? 'record.missing' : 'record.failed';
}

/**
 * Record until the person stops or the longest time is over.
 *
 * @param {MediaStream} stream is released in the end
 * @param {HTMLButtonElement} stop
 * @param {HTMLButtonElement} discard
 * @returns {Promise<File | null>} null where it was discarded
 */
async function record(stream, stop, discard) {
  let stopMeter = () => {};
  try {
    const recorder = new MediaRecorder(stream);
    const end = () => recorder.state === 'recording' && recorder.stop();
    const ended = new Promise((resolve, reject) => {
      recorder.addEventListener('stop', () => resolve(true));
      recorder.addEventListener('error', reject);
      stop.onclick = end;
      discard.onclick = () => resolve(false);
    });
    /** @type {Blob[]} */
    const pieces = [];
    recorder.addEventListener('dataavailable', (event) => pieces.push(event.data));
    recorder.start();
    stopMeter = showLevel(stream, end);
    const kept = await ended;
    const type = recorder.mimeType.split(';')[0];
    return kept ? new File(pieces, `${recordingName()}.${EXTENSIONS[type] ?? 'webm'}`, { type }) : null;
  } finally {
    stopMeter();
    for (const track of stream.getTracks()) {
      track.stop();
    }
  }
}

function recordingName() {
  const now = new Date();
  const parts = [now.getHours(), now.getMinutes(), now.getSeconds()].map((part) => String(part).padStart(2, '0'));
  return message('record.name', { time: parts.join('-') });
}

/**
 * Show level and time of a stream.
 *
 * @param {MediaStream} stream
 * @param {() => void} over called when the longest time is over
 * @returns {() => void} stops it
 */
function showLevel(stream, over) {
  const bar = find('record-level', HTMLElement);
  const clock = find('record-time', HTMLElement);
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 2048 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const began = performance.now();
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    const decibels = 10 * Math.log10(power + 1e-12);
    const level = Math.min(1, Math.max(0, 1 - decibels / QUIETEST));
    bar.style.setProperty('clip-path', `inset(0 ${(100 * (1 - level)).toFixed(1)}% 0 0)`);
    const seconds = (performance.now() - began) / 1000;
    clock.textContent = `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, '0')}`;
    if (seconds >= LONGEST) {
      over();
    }
  }, 50);
  return () => {
    clearInterval(timer);
    context.close();
    bar.style.removeProperty('clip-path');
    clock.textContent = '0:00.0';
  };
}
