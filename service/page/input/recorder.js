// Record a file with the microphone, with a level meter and the elapsed time.

import { find, showNotice } from '../common/dom.js';
import { clock, timeOfDay } from '../common/format.js';
import { message } from '../i18n/language.js';
import { closeMicrophone, microphoneError, microphoneUnavailable, openMicrophone, showLevel } from './microphone.js';

/** Seconds after which a recording stops; the service's default limit is five minutes. */
const MAX_SECONDS = 300;

const EXTENSIONS = /** @type {Record<string, string>} */ ({
  'audio/webm': 'webm',
  'audio/ogg': 'ogg',
  'audio/mp4': 'm4a',
});

/** @param {(file: File) => void} onRecording called with each recording */
export function startRecorder(onRecording) {
  const start = find('record', HTMLButtonElement);
  const inputButtons = find('input-buttons', HTMLElement);
  const panel = find('recorder', HTMLElement);
  const stop = find('record-stop', HTMLButtonElement);
  const discard = find('record-discard', HTMLButtonElement);
  const notice = find('record-notice', HTMLElement);

  start.addEventListener('click', async () => {
    const reason = microphoneUnavailable() ?? ('MediaRecorder' in window ? null : 'record.unsupported');
    showNotice(notice, reason ?? 'record.asking', { origin: location.origin });
    if (reason) {
      return;
    }
    start.disabled = true;
    let file = null;
    try {
      const stream = await openMicrophone();
      showNotice(notice, null);
      panel.hidden = false;
      inputButtons.hidden = true;
      stop.focus();
      file = await record(stream, stop, discard);
      if (file?.size === 0) {
        file = null;
        showNotice(notice, 'record.empty');
      }
    } catch (error) {
      showNotice(notice, microphoneError(error));
    }
    panel.hidden = true;
    inputButtons.hidden = start.disabled = false;
    start.focus();
    if (file) {
      onRecording(file);
    }
  });
}

/**
 * Record until the user stops or the time limit is reached.
 *
 * @param {MediaStream} stream is closed at the end
 * @param {HTMLButtonElement} stop
 * @param {HTMLButtonElement} discard
 * @returns {Promise<File | null>} null if it was discarded
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
    stopMeter = showProgress(stream, end);
    const finished = await ended;
    const type = recorder.mimeType.split(';')[0];
    return finished
      ? new File(pieces, `${message('record.name', { time: timeOfDay(new Date()) })}.${EXTENSIONS[type] ?? 'webm'}`, {
          type,
        })
      : null;
  } finally {
    stopMeter();
    closeMicrophone(stream);
  }
}

/**
 * Show the level of a stream and the elapsed time.
 *
 * @param {MediaStream} stream
 * @param {() => void} onLimit called when the time limit is reached
 * @returns {() => void} stops the display
 */
function showProgress(stream, onLimit) {
  const time = find('record-time', HTMLElement);
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 2048 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const began = performance.now();
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    showLevel('record-level', samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
    const seconds = (performance.now() - began) / 1000;
    time.textContent = clock(seconds, 1);
    if (seconds >= MAX_SECONDS) {
      onLimit();
    }
  }, 50);
  return () => {
    clearInterval(timer);
    context.close();
    showLevel('record-level', null);
    time.textContent = clock(0, 1);
  };
}
